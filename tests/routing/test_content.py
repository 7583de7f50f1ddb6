"""When a text holds nothing to judge, by tokens of bytes: not by how its windows are cut."""

import numpy as np
import pytest

from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.data.windows import windows_of
from cr_jax.routing.content import BLANK, REPEATED, Content, has_content

BYTES = ByteTokenizer()


def lacking(text, window=16, step=1):
    content = Content(BYTES)
    found = windows_of(np.asarray(BYTES.encode(text)), window, BYTES.pad_id)
    for i in range(0, len(found), step):
        content.add(found.take(slice(i, i + step)))
    return content.lacking


@pytest.mark.parametrize(
    "text, want",
    [
        (" \t\n\r\n\x00\x1b\u200b\u00a0\u3000\ufeff", BLANK),
        ("a", REPEATED),
        ("a \na\ta", REPEATED),
        ("ab", ""),
        (" a" * 40 + "bbb", ""),
        ("яю", ""),
        ("я", REPEATED),
        ("\n" * 99 + "x = 1", ""),
    ],
)
@pytest.mark.parametrize("window, step", [(16, 1), (16, 9), (3, 1), (64, 1)])
def test_texts(text, want, window, step):
    for times in (1, 7, 50):
        assert lacking(text * times, window, step) == want


def test_the_edges_of_a_repetition_do_not_count():
    assert lacking("th" + "e " * 8) == REPEATED and lacking("th" + "e" * 7) == ""
    assert lacking("th" + "e " * 300 + "x") == ""
    assert [lacking(text) for text in ("a" * 90 + "bc", "bc" + "a" * 90)] == [REPEATED] * 2


def test_nothing_was_read_yet():
    assert Content(BYTES).lacking == BLANK


def test_ids_that_no_text_has_are_neither_blank_nor_alike():
    for ids, want in (([300, 301], ""), ([300, 300], REPEATED), ([BYTES.end_id, 97], "")):
        content = Content(BYTES)
        content.add(windows_of(np.array(ids), 4, BYTES.pad_id))
        assert content.lacking == want


@pytest.mark.parametrize(
    "text", ["", " \n\t", "aaaa" * 99, "é" * 99, "\u200b" * 9, "a" * 99 + "bc"]
)
def test_a_quick_look_never_finds_what_is_not_there(text):
    assert not has_content(BYTES, BYTES.encode(text))


@pytest.mark.parametrize("text", ["some words of a text", "詩經國風", "\n\n  x = 12\n"])
def test_a_quick_look_is_enough_for_usual_texts(text):
    assert has_content(BYTES, BYTES.encode(text)) and lacking(text) == ""
