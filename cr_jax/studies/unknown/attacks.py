"""Easy inputs that a lenient compressor rebuilds though they are no domain's text.

Not in the paper.  Texts are generated and then tokenised, so that everything here can reach a
router through its front door; deterministic by seed (minified code also by the interpreter, whose
standard library it is made from).
"""

import base64
import builtins
import io
import itertools
import json
import keyword
import tokenize
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cr_jax.data.sources import documents
from cr_jax.data.tokenizers.token_table import Tokenizer
from cr_jax.data.windows import Windows, windows_of
from cr_jax.errors import UserError

GRAMS = (2, 16)  # tokens in a repeated n-gram, shortest and longest
_TRIES = 64  # tokens looked at for one that stays itself when repeated
_LONGEST = 1 << 22  # characters after which a text is given up

_OWN_LICENCE = """\
Copyright (c) {year} {holder}
You may use, copy, change and pass on this work, for any purpose and without a fee, as long as
this notice stays with it. The work comes as it is: there is no promise that it is fit for any
purpose, and its authors answer for no damage that follows from its use.
"""
# The MIT License as published at https://opensource.org/license/mit
_MIT = """\
Copyright (c) {year} {holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
_COMMENTS = ("# ", "// ", " * ", "-- ", "; ", "")
_SYLLABLES = ("ka", "lo", "mi", "ter", "van", "sol", "ri", "den", "po", "gra", "ne", "shi")
_KEPT = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"}


def attacks(
    tokenizer: Tokenizer,
    window: int,
    count: int,
    seed: int,
    known_texts: Mapping[str, Sequence[str]],
) -> dict[str, Windows]:
    """-> {attack: `count` full windows of `window` tokens}.

    known_texts: per known domain some of its test texts, whose words are shuffled and whose
    n-grams are repeated; domains take turns.  A kind's windows do not depend on the other kinds.
    `UserError` when a count is below 1 or a known domain has no text.
    """
    if window < 1 or count < 1:
        raise UserError(f"window {window} and number of attacks {count} must be 1 or more")
    known = [[t for t in texts if t.strip()] for texts in known_texts.values()]
    if not known or not all(known):
        raise UserError("attacks need at least one text that is not blank of every known domain")
    code = _Minified()
    makers: dict[str, Callable[[np.random.Generator, int], Callable[[int], str]]] = {
        "repeated_token": lambda rng, i: _repeat(_repeatable(tokenizer, rng)),
        "white_space": _white_space,
        "repeated_ngram": lambda rng, i: _repeat(_ngram(tokenizer, rng, known[i % len(known)])),
        "licence": lambda rng, i: lambda n: _join(lambda: _licence(rng), n),
        "digits": _digits,
        "base64": lambda rng, i: lambda n: base64.encodebytes(rng.bytes(n)).decode(),
        "hex_dump": _hex_dump,
        "minified_code": lambda rng, i: code.text(int(rng.integers(1 << 30))),
        "shuffled_words": lambda rng, i: _shuffled(rng, known[i % len(known)]),
        "random_unicode": _unicode,
        "json_numbers": lambda rng, i: lambda n: _join(lambda: _json(rng), n),
        "csv_numbers": _csv,
    }
    made = {}
    for kind, make in makers.items():
        rows = []
        for i in range(count):
            rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), i])
            rows.append(_filled(tokenizer, window, make(rng, i)))
        made[kind] = Windows(
            np.stack(rows), np.ones((count, window), bool), np.arange(count, dtype=np.int64)
        )
    return made


def minify(source: str) -> str:
    """Python source without comments, docstrings, blanks and long names (but keywords, builtins).

    Not in the paper.  Raises `SyntaxError` or `tokenize.TokenError` when it is not Python.
    """
    out, short, depth, fresh, before = [], {}, 0, True, ""
    for kind, text, *_ in tokenize.generate_tokens(io.StringIO(source).readline):
        if kind in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            continue
        if kind in (tokenize.INDENT, tokenize.DEDENT):
            depth += 1 if kind == tokenize.INDENT else -1
        elif kind == tokenize.NEWLINE:
            out.append("\n")
            fresh, before = True, ""
        else:
            if kind == tokenize.STRING and fresh:
                text = "0"  # a docstring: a statement must stay
            elif kind == tokenize.NAME and text not in _KEPT and not text.startswith("__"):
                text = short.setdefault(text, _letters(len(short))) if len(text) > 3 else text
            if fresh:
                out.append(" " * depth)
            elif _wordy(before[-1:]) and _wordy(text[:1]):
                out.append(" ")
            out.append(text)
            fresh, before = False, text
    return "".join(out)


class _Minified:
    """The standard library's held-out files, minified when they are first asked for."""

    def __init__(self):
        self._sources = sorted(
            (d.name, d.text) for d in documents("stdlib@test") if len(d.text) < 60_000
        )
        self._done: dict[int, str] = {}

    def text(self, draw: int) -> Callable[[int], str]:
        def make(size):
            parts, total, at = [], 0, draw
            while total < size:
                parts.append(self._file(at % len(self._sources)))
                total += max(1, len(parts[-1]))
                at += 1
            # A random place of the first file: its import lines are all alike.
            start = draw % max(1, len(parts[0]) // 2)
            return "".join(parts)[start:]

        return make

    def _file(self, i: int) -> str:
        if i not in self._done:
            try:
                self._done[i] = minify(self._sources[i][1])
            except (SyntaxError, tokenize.TokenError):
                self._done[i] = ""
        return self._done[i]


def _filled(tokenizer: Tokenizer, window: int, make: Callable[[int], str]) -> np.ndarray:
    """The first `window` tokens of a text that is made longer until it has them."""
    size = 4 * window
    while size <= _LONGEST:
        ids = np.asarray(tokenizer.encode(make(size)))
        if len(ids) >= window:
            return windows_of(ids[:window], window, tokenizer.pad_id).tokens[0]
        size *= 2
    raise UserError(f"the tokenizer makes fewer than {window} tokens of {_LONGEST} characters")


def _repeat(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // max(1, len(unit)) + 1)


def _join(make: Callable[[], str], size: int) -> str:
    parts: list[str] = []
    while sum(map(len, parts)) < size:
        parts.append(make())
    return "".join(parts)


def _repeatable(tokenizer: Tokenizer, rng) -> str:
    """A random token's text which, repeated, stays one repeated token as nearly as can be found."""
    best, most = " ", -1.0
    for i in rng.integers(0, tokenizer.vocab_size, _TRIES):
        text = tokenizer.decode(np.array([i]))
        if not text or "\ufffd" in text:
            continue
        ids = np.asarray(tokenizer.encode(text * 64))
        share = np.unique(ids, return_counts=True)[1].max() / len(ids)
        if share > most:
            best, most = text, share
        if share > 0.95:
            break
    return best


def _ngram(tokenizer: Tokenizer, rng, texts: Sequence[str]) -> str:
    size = int(rng.integers(GRAMS[0], GRAMS[1] + 1))
    ids = np.asarray(tokenizer.encode(texts[rng.integers(len(texts))][:20_000]))
    start = rng.integers(max(1, len(ids) - size))
    return tokenizer.decode(ids[start : start + size]).replace("\ufffd", "") or "ab"


def _white_space(rng, i: int) -> Callable[[int], str]:
    plain = (" ", "\n", "\t", "\r\n", "    \n")
    if i % 6 < len(plain):
        return _repeat(plain[i % 6])
    return lambda size: "".join(plain[k] for k in rng.integers(len(plain), size=size))


def _licence(rng) -> str:
    holder = " ".join("".join(rng.choice(_SYLLABLES, 2)).title() for _ in range(2))
    text = (_OWN_LICENCE, _MIT)[rng.integers(2)].format(
        year=rng.integers(1990, 2027), holder=holder
    )
    mark = _COMMENTS[rng.integers(len(_COMMENTS))]
    return "".join((mark + line).rstrip() + "\n" for line in text.splitlines()) + "\n"


def _digits(rng, i: int) -> Callable[[int], str]:
    def make(size):
        digits = "".join(map(str, rng.integers(0, 10, size)))
        if i % 3 == 0:
            return digits
        if i % 3 == 1:  # counting
            start = int(rng.integers(1, 10**9))
            return " ".join(str(start + k) for k in range(size // 4))
        cuts = np.cumsum(rng.integers(4, 24, size // 4))
        return " ".join(digits[a:b] for a, b in itertools.pairwise(cuts))

    return make


def _hex_dump(rng, i: int) -> Callable[[int], str]:
    def make(size):
        data = rng.bytes(max(16, size // 2))
        if i % 2:
            return data.hex()
        rows = (data[k : k + 16] for k in range(0, len(data), 16))
        return "".join(
            f"{k * 16:08x}  {row.hex(' ')}  "
            f"|{''.join(chr(c) if 32 <= c < 127 else '.' for c in row)}|\n"
            for k, row in enumerate(rows)
        )

    return make


def _shuffled(rng, texts: Sequence[str]) -> Callable[[int], str]:
    def make(size):
        words: list[str] = []
        for k in rng.permutation(len(texts)):
            words += texts[k].split()
            if sum(map(len, words)) > 4 * size:
                break
        # Scripts without spaces: what stands between two spaces is a sentence, not a word.
        whole = "".join(words)
        joint = " "
        if sum("\u2e80" <= c <= "\ud7ff" for c in whole) > len(whole) / 3:
            words, joint = list(whole), ""
        return joint.join(words[k] for k in rng.integers(len(words), size=size))

    return make


def _unicode(rng, i: int) -> Callable[[int], str]:
    def make(size):
        points = rng.integers(0x20, 0x30000 if i % 2 else 0x3000, size)
        points = points[(points < 0xD800) | (points > 0xDFFF)]
        return "".join(map(chr, points.tolist()))

    return make


def _json(rng) -> str:
    rows = [
        {
            "id": int(rng.integers(1 << 20)),
            "x": round(float(rng.normal()), 4),
            "values": [round(float(v), 3) for v in rng.normal(0, 100, 4)],
        }
        for _ in range(4)
    ]
    return json.dumps(rows) + "\n"


def _csv(rng, i: int) -> Callable[[int], str]:
    columns, places = int(rng.integers(3, 9)), int(rng.integers(0, 7))
    comma = ",;\t"[i % 3]

    def make(size):
        rows = rng.normal(0, 1000, (size // 8 + 1, columns))
        return "".join(comma.join(f"{v:.{places}f}" for v in row) + "\n" for row in rows)

    return make


def _wordy(character: str) -> bool:
    return character.isalnum() or character in ("_", '"', "'") if character else False


def _letters(n: int) -> str:
    """a, b, ..., z, aa, ab, ... past the words of the language."""
    out, n = "", n + 1
    while n:
        n, at = divmod(n - 1, 26)
        out = chr(97 + at) + out
    return out + "_" if out in _KEPT else out
