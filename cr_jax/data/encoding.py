"""Documents -> token ids in the documents' order, by this process or by several."""

import collections
import contextlib
import dataclasses
import queue
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from cr_jax.data.encode_worker import EncodeWorker, Ids, Stopped, encode, id_type
from cr_jax.data.finding import LeftOut
from cr_jax.data.sources import Document
from cr_jax.data.tokenizers import SHIPPED, Tokenizer
from cr_jax.errors import UserError
from cr_jax.host.memory import usable_cores

CHUNK = 1 << 18  # characters of documents that are encoded at a time; a longer document is alone
ALONE = 1 << 22  # characters before other processes are started, which takes a second
_AHEAD = 3  # chunks of text held per process


@dataclasses.dataclass(frozen=True)
class Encoded:
    """D consecutive documents as T ids, each document's followed by the tokenizer's `end_id`."""

    tokens: Ids
    lengths: Int64[np.ndarray, " D"]  # tokens of each document
    names: Sequence[str]
    bytes: int  # of UTF-8 that the tokens stand for
    left_out: str = ""  # in words, what the sources left out up to the chunk's end

    def cut(self, most: int, tokenizer: Tokenizer) -> "Encoded":
        """The first `most` > 0 tokens; the last of them becomes `end_id`."""
        if most >= len(self.tokens):
            return self
        tokens = self.tokens[:most].copy()
        tokens[-1] = tokenizer.end_id
        ends = np.cumsum(self.lengths)
        count = int(np.searchsorted(ends, most)) + 1
        lengths = self.lengths[:count].copy()
        lengths[-1] -= ends[count - 1] - most
        return Encoded(
            tokens,
            lengths,
            self.names[:count],
            int(tokenizer.token_bytes[tokens].sum()),
            self.left_out,
        )


class Encoder:
    """`with Encoder(tokenizer, jobs) as encoder:` each `encoder(documents)` gives `Encoded` parts.

    The parts depend on the documents alone, not on `jobs`.  Memory is bounded: a few chunks of text
    and of ids per process, and the longest document.  Not in the paper.

    Args:
        jobs: processes; 0: one per usable core.  A tokenizer of a kind of the caller's own cannot
            be sent to another process and is used in this one.
    """

    def __init__(self, tokenizer: Tokenizer, jobs: int = 0):
        if jobs < 0:
            raise UserError(f"{jobs} processes cannot encode text; give 1 or more")
        shipped = type(tokenizer) in SHIPPED
        self.tokenizer, self.jobs = tokenizer, (jobs or usable_cores()) if shipped else 1
        self._threads: ThreadPoolExecutor | None = None
        self._characters = 0

    def __enter__(self) -> "Encoder":
        self._open = contextlib.ExitStack()
        return self

    def __exit__(self, *_) -> None:
        if self._threads:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._open.close()  # ends the processes, and so the threads that wait for them

    def __call__(
        self, documents: Iterable[Document], left_out: LeftOut | None = None
    ) -> Iterator[Encoded]:
        """Encodes `documents` in their order; left_out: what reading them counts into.

        `UserError` as reading `documents` raises it, after all that came before it.
        """
        waiting: collections.deque[tuple[list[Document], str, Future | None]] = collections.deque()
        chunks, failure = _chunks(documents, left_out or LeftOut()), None
        try:
            while True:
                while chunks and len(waiting) < (_AHEAD * self.jobs if self._threads else 1):
                    try:
                        chunk, line = next(chunks)
                        waiting.append((chunk, line, self._begin(chunk)))
                    except StopIteration:
                        chunks = None
                    except UserError as error:
                        chunks, failure = None, error
                if not waiting:
                    break
                chunk, line, future = waiting.popleft()
                found = (
                    future.result()
                    if future
                    else encode(self.tokenizer, [document.text for document in chunk])
                )
                yield Encoded(*found[:2], [document.name for document in chunk], found[2], line)
        finally:
            for *_, future in waiting:
                if future:
                    future.cancel()
        if failure:
            raise failure

    def _begin(self, chunk: list[Document]) -> Future | None:
        """Gives a chunk to the processes; None: it is encoded here when its turn comes."""
        texts = [document.text for document in chunk]
        self._characters += sum(map(len, texts))
        if self.jobs > 1 and not self._threads and self._characters > ALONE:
            self._start()
        return self._threads.submit(self._ask, texts) if self._threads else None

    def _start(self) -> None:
        """One thread per process carries text there and ids back."""
        try:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
            self.tokenizer.save(folder)
            workers = [
                self._open.enter_context(EncodeWorker(folder, id_type(self.tokenizer)))
                for _ in range(self.jobs)
            ]
        except OSError as error:
            raise Stopped(
                f"cannot start {self.jobs} processes: {error.strerror}; encode with fewer"
            ) from error
        self._idle: queue.SimpleQueue[EncodeWorker] = queue.SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self.jobs)

    def _ask(self, texts: list[str]):
        worker = self._idle.get()
        try:
            return worker.encode(texts)
        finally:
            self._idle.put(worker)


def _chunks(
    documents: Iterable[Document], left_out: LeftOut
) -> Iterator[tuple[list[Document], str]]:
    """Lists of documents of at least `CHUNK` characters, each with what was left out so far; what
    is read before a failure comes.
    """
    held: list[Document] = []
    size = 0
    try:
        for document in documents:
            held.append(document)
            size += len(document.text)
            if size >= CHUNK:
                yield held, left_out.line
                held, size = [], 0
    except UserError:
        if held:
            yield held, left_out.line
        raise
    if held:
        yield held, left_out.line
