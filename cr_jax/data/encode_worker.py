"""A process that encodes documents for another one, over its standard input and output.

    python -m cr_jax.data.encode_worker TOKENIZER_FOLDER

Both ends are here.  A request is (documents, bytes), the bytes of each document, and the UTF-8 text
of all; an answer is (documents, bytes of the ids, text bytes), the tokens of each document, and the
ids.  The process ends when its input ends, so it never outlives the process that started it.  It is
no `multiprocessing` worker: that would import the caller's program again.
"""

import contextlib
import itertools
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt16, UInt32

from cr_jax.data.tokenizers import Tokenizer, load_tokenizer
from cr_jax.errors import UserError

LONG = 1 << 20  # characters that are encoded at once
_REQUEST, _ANSWER = struct.Struct("<QQ"), struct.Struct("<QQQ")
_FAILED = (1 << 64) - 1  # in place of the number of documents: a message follows
_ROOT = Path(__file__).resolve().parents[2]


class Stopped(UserError):
    """Encoding stopped through no fault of the text: what is finished is kept."""


Ids = UInt16[np.ndarray, " T"] | UInt32[np.ndarray, " T"]


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type of the two that holds every id: uint16 when V <= 65,536, or uint32."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Ids, Int64[np.ndarray, " D"], int]:
    """-> (ids of all texts, each followed by `end_id`; tokens of each; UTF-8 bytes of all).

    A text of more than `LONG` characters is encoded in pieces.
    """
    dtype, parts, lengths, size = id_type(tokenizer), [], [], 0
    end = np.array([tokenizer.end_id], dtype)
    for text in texts:
        count = 0
        for piece in itertools.chain(map(tokenizer.encode, _pieces(text)), [end]):
            parts.append(piece.astype(dtype))
            count += len(piece)
            size += int(tokenizer.token_bytes[piece].sum())
        lengths.append(count)
    return np.concatenate(parts), np.array(lengths, np.int64), size


def _pieces(text: str) -> Iterator[str]:
    """Pieces of at most `LONG` characters: SentencePiece takes fifty bytes for each at once.

    A piece ends after the last line feed that it holds, or is full.
    """
    start = 0
    while len(text) - start > LONG:
        cut = text.rfind("\n", start, start + LONG) + 1 or start + LONG
        yield text[start:cut]
        start = cut
    yield text[start:]


class EncodeWorker:
    """`with EncodeWorker(folder) as worker:` encodes with the tokenizer that was saved there."""

    def __init__(self, folder: Path, dtype: np.dtype):
        self._dtype = dtype
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        # In a session of its own: Ctrl-C in a terminal goes to the process that decides alone.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )

    def __enter__(self) -> "EncodeWorker":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                stream.close()

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Int64[np.ndarray, " D"], int]:
        """As the function `encode`.  `Stopped` when the process fails or is killed."""
        data = [text.encode("utf-8") for text in texts]
        lengths = np.array([len(part) for part in data], np.int64)
        try:
            out = self._process.stdin
            # One that failed at once no longer reads, but its message can be read.
            with contextlib.suppress(BrokenPipeError):
                out.write(_REQUEST.pack(len(data), int(lengths.sum())) + lengths.tobytes())
                out.writelines(data)
                out.flush()
            answer = self._process.stdout
            count, size, total = _ANSWER.unpack(_exactly(answer, _ANSWER.size))
            if count == _FAILED:
                raise Stopped(
                    "a process that encodes text failed: "
                    + _exactly(answer, size).decode("utf-8", "replace")
                )
            lengths = np.frombuffer(_exactly(answer, 8 * count), np.int64)
            return np.frombuffer(_exactly(answer, size), self._dtype), lengths, total
        except Stopped:  # a ValueError, too
            raise
        except (OSError, EOFError, ValueError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # for its exit status
            raise Stopped(
                "a process that encodes text was stopped (exit status "
                f"{self._process.poll()}), for example because there is too little "
                "memory; run the same command to go on, with fewer of them"
            ) from None


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _serve(tokenizer: Tokenizer, source: BinaryIO, out: BinaryIO) -> None:
    while head := source.read(_REQUEST.size):
        count, size = _REQUEST.unpack(head)
        lengths = np.frombuffer(_exactly(source, 8 * count), np.int64)
        data = memoryview(_exactly(source, size))
        ends = np.cumsum(lengths)
        texts = [
            str(data[end - length : end], "utf-8")
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]
        ids, tokens, total = encode(tokenizer, texts)
        out.write(_ANSWER.pack(count, ids.nbytes, total))
        out.write(tokens.tobytes())
        out.write(ids.tobytes())
        out.flush()


def main() -> None:
    """Serves until the input ends; a failure is answered with its message."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    try:
        _serve(load_tokenizer(sys.argv[1]), source, out)
    except EOFError:
        return  # whoever asked is gone
    except Exception as error:
        said = (str(error) or type(error).__name__).encode("utf-8", "replace")
        out.write(_ANSWER.pack(_FAILED, len(said), 0) + said)
        out.flush()


if __name__ == "__main__":
    main()
