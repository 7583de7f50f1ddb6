"""One form of a text: the same whoever saved it, and wherever it is cut into pieces."""

import itertools
import random
import sys
import unicodedata

import pytest

from cr_jax.data import text_form as module
from cr_jax.data.text_form import LF_NFC, RAW, formed, text_form

GERMAN = "Als der Förster früh\ndas Fenster öffnete: »schön«\n\n\tä\n"
HANGUL, INDIC = "한국어 각", "\u09cb\u0b4b\u0bcb\u0ccb\u0d4b\u0ddc"
ENDS = {
    "CR LF": "\r\n",
    "CR": "\r",
    "CR CR LF": "\r\r\n",
    "NEL": "\x85",
    "LS": "\u2028",
    "PS": "\u2029",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_every_line_end_is_a_line_feed(end):
    assert text_form(GERMAN.replace("\n", end)) == GERMAN
    assert text_form(end) == "\n" and text_form(f"a{end}{end}b") == "a\n\nb"


def test_what_is_no_line_end_stays():
    text = "a\fb\vc\x1c\x1d\x1e\td\u200be\u00a0 \ufefff\0"
    assert text_form(text) == text
    assert text_form("a\r\r\r\nb\n\rc") == "a\n\nb\n\nc"


@pytest.mark.parametrize("text", [GERMAN, HANGUL, INDIC, "ế ṩ ǖ", "\u1026\u1b06", "Å Ω"])
def test_composed_and_decomposed_text_are_one(text):
    text = unicodedata.normalize("NFC", text)
    apart = unicodedata.normalize("NFD", text)
    assert apart != text or text.isascii() or text == "Å Ω"
    assert text_form(apart) == text_form(text) == text


def test_marks_in_another_order_and_singletons():
    assert text_form("q\u0307\u0323") == text_form("q\u0323\u0307") == "q\u0323\u0307"
    assert text_form("\u212b\u2126\u2000") == "ÅΩ\u2002"
    # Compatible is not equal: these are other characters to those who wrote them.
    assert text_form("ﬁ²ｶ①") == "ﬁ²ｶ①"


def test_byte_order_marks_at_the_start_go_others_stay():
    assert text_form("\ufeffab\ufeffc") == text_form("\ufeff\ufeffab\ufeffc") == "ab\ufeffc"
    assert text_form("\ufeff") == text_form("") == ""
    assert list(formed(["\ufeff", "", "\ufeff", "a", "\ufeff"])) != []
    assert "".join(formed(["\ufeff", "", "\ufeff", "a", "\ufeff"])) == "a\ufeff"


def test_text_that_has_the_form_is_not_changed_and_raw_changes_nothing():
    for text in (GERMAN, HANGUL, "x = 1\n", "\n", "\ud800 half", "q" * 10_000 + "\u0323\n"):
        assert text_form(text) == text
        assert text_form(text_form(text)) == text_form(text)
    odd = "\ufeffa\r\nA\u0308\x85"
    assert text_form(odd, RAW) == odd and text_form(odd, LF_NFC) == "a\nÄ\n"
    assert list(formed(iter(["a\r", "\n"]), RAW)) == ["a\r", "\n"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa\r\nb\r\r\nc\rd\r\r\ne\x85f\n\rg\r",
        "\r\r",
        "\r",
        "\r\n",
        unicodedata.normalize("NFD", "ếṩ ǖ가각 힣\r\nq\u0307\u0323"),
        "\u0301a\u0301\r\u0301\n\u0301",
        unicodedata.normalize("NFD", INDIC),
        "\u1100\u1161\u11a8\uac00\u11a8\u0f71\u0f73\u0f40\u0f71",
        "a\u0315\u0300\u05ae\u1d16d\u0062",
        "\U000110ba\U00011099\U000110ba\U0001d15e\U0001d16d",
        "a" + "\u0301\u0323" * 9 + "b" + "\u0327" * 3 + "c" + "\u0323\u0301" * 8,
    ],
)
@pytest.mark.parametrize("most", [1024, 4])
def test_no_cut_matters(monkeypatch, text, most):
    """Every pair of cuts, and one character at a time; with few characters that may wait, too."""
    monkeypatch.setattr(module, "_MOST", most)
    whole = text_form(text)
    if most > 100:
        ends = text.lstrip("\ufeff").replace("\r\r\n", "\n").replace("\r\n", "\n")
        ends = ends.replace("\r", "\n").replace("\x85", "\n")
        assert whole == unicodedata.normalize("NFC", ends)
    for a, b in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        assert "".join(formed([text[:a], text[a:b], text[b:]])) == whole, (a, b)
    assert "".join(formed(text)) == whole


def test_random_texts_cut_at_random():
    draw = random.Random(0)
    letters = [
        "\r",
        "\n",
        "a",
        "e",
        " ",
        "\u0301",
        "\u0323",
        "\u0327",
        "\uac00",
        "\u1100",
        "\u1161",
        "\u11a8",
        "\u0b47",
        "\u0b3e",
        "\ufeff",
        "\u0f71",
        "\u0f72",
        "é",
        "中",
        "\x85",
    ]
    for _ in range(3000):
        text = "".join(draw.choices(letters, k=draw.randrange(40)))
        cuts = sorted(draw.choices(range(len(text) + 1), k=draw.randrange(6)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        found = text_form(text)
        assert "".join(formed(pieces)) == found == text_form(found)
        assert unicodedata.is_normalized("NFC", found) and not set(found) & set("\r\x85")


def test_what_may_join_is_all_that_this_unicode_joins():
    """No character that is taken for a safe place to cut can join, or pass, what stands before."""
    taken_apart = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.decomposition(chr(code))[:1] not in ("", "<")
    ]
    assert len(taken_apart) > 2000
    for c in taken_apart:
        if unicodedata.combining(unicodedata.normalize("NFD", c)[0]):
            assert module._may_join(c), hex(ord(c))
        pair = "".join(chr(int(x, 16)) for x in unicodedata.decomposition(c).split())
        if len(pair) == 2 and unicodedata.normalize("NFC", pair) != pair:
            assert module._may_join(pair[1]), hex(ord(c))
    for first, second in itertools.product("\u1100\uac00\uac01", map(chr, range(0xAC00, 0xAC20))):
        assert unicodedata.normalize("NFC", first + second) == first + second


def test_memory_is_bounded_by_the_piece(monkeypatch):
    """Also of text that is nothing but marks: parts of it stand alone."""
    monkeypatch.setattr(module, "_MOST", 16)
    sizes = [len(part) for part in formed(itertools.repeat("\u0301" * 10, 300))]
    assert sum(sizes) == 3000 and len(sizes) >= 100 and max(sizes) <= 30
    text = "a" + "\u0323\u0301" * 200
    assert "".join(formed(text)) == text_form(text) != text
    first = next(formed(f"line {i}\r\n" for i in itertools.count()))
    assert first == "line 0"
