"""One form of a text for tokens: what a text says must not depend on who saved it.  Not in the
paper.

The form "lf_nfc":

- every line end is a line feed.  CR LF is what Windows writes (and CR CR LF what it makes of that
  when it is told to convert twice), CR what old Macs wrote, NEL (U+0085) IBM's mainframes, and
  U+2028 and U+2029 are Unicode's own.  Form feeds and vertical tabs stay: they mark pages, in texts
  that have line ends.
- Unicode is in normal form C (UAX 15): "ä" is one character, whether it was written as one or as
  "a" and two dots.  That changes no character that can be seen.
- no byte order mark stands at the start.

A text that has the form already is not changed.  "raw" leaves every text as it is.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

Form = Literal["lf_nfc", "raw"]
LF_NFC: Form = "lf_nfc"
RAW: Form = "raw"
FORMS = LF_NFC, RAW
WORDS = {LF_NFC: "with line ends as LF and Unicode as NFC", RAW: "as it is"}

_LINE_ENDS = re.compile("\r?\r\n|[\r\x85\u2028\u2029]")
_MOST = 1024  # characters in a row that could join those before them: of more, parts stand alone
# What may join the character before it though its combining class is 0: vowel signs of Indic
# scripts, jamo that complete a Hangul syllable, and some Tibetan vowels that are taken apart.  All
# of the planes where more scripts of India are still added.
_JOINING = frozenset(
    map(
        chr,
        (
            0x9BE,
            0x9D7,
            0xB3E,
            0xB56,
            0xB57,
            0xBBE,
            0xBD7,
            0xCC2,
            0xCD5,
            0xCD6,
            0xD3E,
            0xD57,
            0xDCF,
            0xDDF,
            0xF73,
            0xF75,
            0xF81,
            0x102E,
            0x1B35,
            *range(0x1160, 0x1200),
        ),
    )
)
_LATER_SCRIPTS = "\U00011000", "\U00016fff"


def text_form(text: str, form: Form = LF_NFC) -> str:
    """`text` in the given form.

    >>> text_form("\\ufeffa\\r\\nA\\u0308\\r")
    'a\\nÄ\\n'
    """
    return "".join(formed([text], form))


def formed(parts: Iterable[str], form: Form = LF_NFC) -> Iterator[str]:
    """The same for a text in consecutive pieces, in bounded memory.

    The pieces that come out, joined, are `text_form` of those that went in, joined: wherever it was
    cut, also between CR and LF or before a combining character.
    """
    if form == RAW:
        yield from parts
        return
    begun, ends, rest = False, "", ""
    for part in parts:
        if not begun:
            part = part.lstrip("\ufeff")
            begun = bool(part)
        part = ends + part
        at = len(part) - (2 if part.endswith("\r\r") else part.endswith("\r"))
        part, ends = part[:at], part[at:]
        whole, rest = _cut(rest + _line_feeds(part))
        if whole:
            yield _composed(whole)
    last = rest + _line_feeds(ends)
    if last:
        yield _composed(last)


def _line_feeds(text: str) -> str:
    if not any(end in text for end in "\r\x85\u2028\u2029"):
        return text  # five times faster than the search below
    return _LINE_ENDS.sub("\n", text)


def _cut(text: str) -> tuple[str, str]:
    """`text`, which joins nothing before it, in two parts that do not join."""
    at = len(text) - 1
    while at > 0 and len(text) - at <= _MOST and _may_join(text[at]):
        at -= 1
    if at > 0 and _may_join(text[at]):
        at = max(_cuts(text))
    at = max(at, 0)
    return text[:at], text[at:]


def _composed(text: str) -> str:
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    places = [0, *_cuts(text), len(text)]
    return "".join(unicodedata.normalize("NFC", text[a:b]) for a, b in itertools.pairwise(places))


def _cuts(text: str) -> list[int]:
    """Places after every `_MOST` characters in a row that may join what stands before them."""
    places = []
    # None below U+0300 joins what stands before it.
    for late in re.finditer(f"[^\0-\u02ff]{{{_MOST},}}", text):
        count = 0
        for at in range(late.start(), late.end()):
            count = count + 1 if _may_join(text[at]) else 0
            if count == _MOST:
                places.append(at + 1)
                count = 0
    return places


def _may_join(character: str) -> bool:
    return character > "\u02ff" and (
        unicodedata.combining(character) != 0
        or character in _JOINING
        or _LATER_SCRIPTS[0] <= character <= _LATER_SCRIPTS[1]
    )
