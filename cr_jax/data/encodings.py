"""Unicode files: UTF-8, or UTF-16 and UTF-32 with a byte order mark; others are named."""

import codecs
import io

from cr_jax.data.unpacking import HEAD, Damaged, told
from cr_jax.errors import UserError

# The longer first: a mark of UTF-32 begins with one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_READ = 1 << 16
_SAMPLE = 1 << 12  # bytes by which an encoding is guessed


def as_utf8(raw: io.BufferedIOBase) -> io.BufferedReader:
    """A stream's bytes; those of UTF-16 or UTF-32 with a byte order mark as UTF-8, mark included.

    `raw` is at its start, and may be a pipe.  `Damaged` by a later read of bytes that are not in
    that encoding.
    """
    head = raw.read(4)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return io.BufferedReader(_Recoded(head, raw, encoding), _READ)
    return io.BufferedReader(_Again(head, raw), _READ)


class _Again(io.RawIOBase):
    """A stream of which the first bytes were read already."""

    def __init__(self, head: bytes, raw: io.BufferedIOBase):
        super().__init__()
        self._out, self._raw = memoryview(head), raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        # More behind the first bytes, lest pieces of a stream begin with a tiny one.  Not by
        # readinto1, which waits for more than a pipe has.
        more = len(buffer) - len(self._out)
        data = bytes(self._out) + (self._raw.read1(more) if more > 0 else b"")
        self._out = memoryview(data)[len(buffer) :]
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        return size


class _Recoded(_Again):
    def __init__(self, head: bytes, raw: io.BufferedIOBase, encoding: str):
        super().__init__(head, raw)
        self._read, self._name = 0, encoding.upper()
        self._waiting, self._out = head, memoryview(b"")
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ended = False

    def readinto(self, buffer) -> int:
        while not self._out:
            if self._ended:
                return 0
            data = self._waiting or self._raw.read1(_READ)
            self._waiting, self._ended = b"", not data
            held = len(self._decoder.getstate()[0])
            try:
                text = self._decoder.decode(data, self._ended)
            except UnicodeDecodeError as error:
                at = self._read - held + error.start
                raise Damaged(
                    f"begins as {self._name} but is not: bad bytes at offset {at}",
                    "save it as UTF-8",
                ) from None
            self._read += len(data)
            self._out = memoryview(text.encode("utf-8"))
        size = min(len(buffer), len(self._out))
        buffer[:size] = self._out[:size]
        self._out = self._out[size:]
        return size


class NotText(UserError):
    """Bytes that are no text in any encoding: an image, an archive, a program."""


def decoded(data: bytes, name: str, offset: int = 0) -> str:
    """The text of UTF-8 bytes, which begin at `offset` of file `name`.

    `NotText` for a binary file, `UserError` for text in another encoding; both name the file and
    the first bad byte.
    """
    nul = data.find(b"\0")
    if nul < 0:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = error.start
    else:
        bad = nul
    start = max(0, bad - _SAMPLE)
    start += -(offset + start) % 4  # characters of a wide encoding begin at multiples of their size
    at, sample = offset + bad, data[start : bad + _SAMPLE]
    kind = None if offset else told(data[:HEAD])
    if kind is not None:
        raise NotText(
            f"{name} is not a text file but {kind}: "
            + ("NUL byte" if nul >= 0 else "no UTF-8")
            + f" at offset {at}; unpack or "
            "convert it first"
        )
    if nul >= 0:
        wide = _wide(sample)
        if wide is None:
            raise NotText(f"{name} is not a text file: NUL byte at offset {at}")
        raise UserError(
            f"{name} is not a text file in UTF-8: NUL byte at offset {at}; it looks "
            f"like {wide} without a byte order mark: convert it, say with "
            f"iconv -f {wide} -t UTF-8"
        )
    if _control(sample):
        raise NotText(
            f"{name} is not a text file: no UTF-8 at offset {at}, and control characters near it"
        )
    raise UserError(
        f"{name} is not UTF-8: bad byte 0x{data[bad]:02x} at offset {at}; it is in "
        "another encoding, such as Windows-1252, or damaged: convert it, say with "
        "iconv -f WINDOWS-1252 -t UTF-8"
    )


def _wide(sample: bytes) -> str | None:
    """UTF-16 or UTF-32, when most characters of a sample are ASCII in one of them."""
    for width, encodings in (
        (4, {0: "UTF-32LE", 3: "UTF-32BE"}),
        (2, {0: "UTF-16LE", 1: "UTF-16BE"}),
    ):
        rows = [sample[i::width] for i in range(width)]
        count = min(map(len, rows))
        if count < 2:
            continue
        nuls = [row[:count].count(0) / count for row in rows]
        for at, encoding in encodings.items():
            others = [share for i, share in enumerate(nuls) if i != at]
            text = sum(32 <= b < 127 or b in b"\t\r\n" for b in rows[at][:count]) / count
            if min(others) > 0.6 and text > 0.6:
                return encoding
    return None


def _control(sample: bytes) -> bool:
    """Whether a sample has control characters that no text has, in any encoding."""
    return any(b < 32 and b not in b"\a\b\t\n\v\f\r\x1a\x1b" for b in sample)
