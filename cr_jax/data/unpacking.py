"""Compressed files as streams: gzip, xz, zstd and bzip2, refused where they end early.

Readers of the standard library pass over whatever follows an .xz or .bz2 stream unless it begins
another one, and zstandard's stops without a word inside a cut frame: text would be lost silently.
Here a file is a row of whole streams, with zero bytes as padding where the format has them, or it
is `Damaged`.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import zstandard

# Bytes that are unpacked at once.  zstandard has no limit on what comes out: a block of 4 bytes can
# stand for 128 KiB, so that this many give at most 32 MiB.
_READ = 1 << 10
_MOST = 1 << 20  # bytes that the other formats give at once
# --long=31 of zstd, and dictionaries of xz: more than any file in use asks for.
_MEMORY = 1 << 31


class Damaged(Exception):
    """A file is not what its format says.  `what` completes "FILE ..."; `advice` says what to do.

    `where`, the place that its reader had reached, is put between the two.
    """

    def __init__(self, what: str, advice: str = "copy or download it again"):
        super().__init__(what, advice)
        self.what, self.advice = what, advice

    def line(self, name: str, where: str = "") -> str:
        """The whole message, in one line."""
        return f"{name} {self.what}{where and ', ' + where}; {self.advice}"


class _Kind(NamedTuple):
    """A format: what its streams begin with, what unpacks one, whether zero bytes may follow."""

    name: str
    magic: tuple[bytes, ...]
    make: Callable[[], Any]
    padded: bool = False


def _zstd():
    return zstandard.ZstdDecompressor(max_window_size=_MEMORY).decompressobj()


_KINDS = (
    _Kind("gzip", (b"\x1f\x8b",), lambda: zlib.decompressobj(wbits=31), padded=True),
    _Kind(
        "xz",
        (b"\xfd7zXZ\0",),
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
        padded=True,
    ),
    # The others are skippable frames, which some writers put first.
    _Kind(
        "zstd",
        (b"\x28\xb5\x2f\xfd", *(bytes([i]) + b"\x2a\x4d\x18" for i in range(0x50, 0x60))),
        _zstd,
    ),
    _Kind("bzip2", tuple(b"BZh%d" % i for i in range(1, 10)), bz2.BZ2Decompressor),
)
_SUFFIXES = {".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2"}
# What can be told by its first bytes but is not read.
_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x04\x22\x4d\x18", "LZ4 data"),
    (b"LZIP", "lzip data"),
    (b"\x1f\x9d", "data of compress"),
    (b"\x5d\0\0", "LZMA data"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF-", "a PDF"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x7fELF", "a program"),
)
HEAD = 264  # bytes by which a file is told; a tar archive shows at byte 257


def told(head: bytes) -> str | None:
    """What a file is that is not plain text, in words ("gzip data"), by its first `HEAD` bytes."""
    for kind in _KINDS:
        if head.startswith(kind.magic):
            return f"{kind.name} data"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((name for magic, name in _OTHERS if head.startswith(magic)), None)


def unpacked(raw: io.BufferedReader, suffix: str) -> io.BufferedReader:
    """A file's bytes, decompressed when its first bytes or its name say that it is compressed.

    `raw` is at its start, buffered by at least `HEAD` bytes.  `Damaged` here or by a later read.
    """
    head = raw.peek(HEAD)[:HEAD]
    kind = next((kind for kind in _KINDS if head.startswith(kind.magic)), None)
    wanted = _SUFFIXES.get(suffix.lower())
    if kind is None and wanted:
        raise Damaged(f"is not {wanted} data" if head else f"is empty, which no {wanted} file is")
    return raw if kind is None else io.BufferedReader(_Unpacked(raw, kind), 1 << 16)


class _Unpacked(io.RawIOBase):
    """All streams of a file, one after the other."""

    def __init__(self, raw: io.BufferedReader, kind: _Kind):
        super().__init__()
        self._raw, self._kind, self._stream, self._streams = raw, kind, None, 0
        self._in, self._out = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._out:
            if not (self._between() if self._stream is None else self._inside()):
                return 0
        size = min(len(buffer), len(self._out))
        buffer[:size] = self._out[:size]
        self._out = self._out[size:]
        return size

    def _between(self) -> bool:
        """Begins the next stream; False at the end of the file."""
        while True:
            self._in = self._in or self._raw.read(_READ)
            if not self._in:
                return False
            if not (self._streams and self._kind.padded):
                break
            self._in = self._in.lstrip(b"\0")
            if self._in:
                break
        longest = max(map(len, self._kind.magic))
        if len(self._in) < longest:
            self._in += self._raw.read(_READ)
        if not self._in.startswith(self._kind.magic):
            if any(magic.startswith(self._in) for magic in self._kind.magic):
                raise self._cut()
            raise Damaged(f"holds something else behind its {self._kind.name} data")
        self._stream, self._streams = self._kind.make(), self._streams + 1
        return True

    def _inside(self) -> bool:
        if not self._in and not self._owes():
            self._in = self._raw.read(_READ)
            if not self._in:
                raise self._cut()
        try:
            self._out = memoryview(self._feed())
        except (
            zlib.error,
            lzma.LZMAError,
            zstandard.ZstdError,
            OSError,
            EOFError,
            ValueError,
            MemoryError,
        ) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise Damaged(f"has damaged {self._kind.name} data ({said})") from None
        if self._stream.eof:
            self._in, self._stream = self._stream.unused_data, None
        return True

    def _owes(self) -> bool:
        """Whether more comes out of the bytes that the decompressor has already."""
        return not getattr(self._stream, "needs_input", True)

    def _feed(self) -> bytes:
        given, self._in = self._in, b""
        if self._kind.name == "zstd":
            return self._stream.decompress(given)
        out = self._stream.decompress(given, _MOST)
        # bzip2 and xz keep what they have not unpacked, zlib gives it back.
        self._in = getattr(self._stream, "unconsumed_tail", b"")
        return out

    def _cut(self) -> Damaged:
        return Damaged(
            f"ends inside its {self._kind.name} data", "it was cut short: copy or download it again"
        )
