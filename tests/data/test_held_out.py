"""A share of the documents is held out by their tokens alone, and nothing is lost."""

import numpy as np
import pytest

from cr_jax.data import ByteTokenizer, load_corpus
from cr_jax.data.held_out import hold_out
from cr_jax.errors import UserError


def corpus(folder, texts):
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_text(text, encoding="utf-8")
    return load_corpus([f"files:{folder}"], ByteTokenizer(), folder.parent / "cache")


def documents(corpus):
    text = ByteTokenizer().decode
    return [text(corpus.tokens[a:b]) for a, b in zip(corpus.starts, corpus.starts[1:])]


TEXTS = [f"text of number {n * n}: é" + "." * (n % 7) for n in range(40)]


def test_a_tenth_is_held_out_and_every_document_is_on_one_side(tmp_path):
    whole = corpus(tmp_path / "a", TEXTS)
    (rest,), held = hold_out([whole], ByteTokenizer())
    assert len(held.names) == 4 and len(rest.names) == 36
    assert sorted(documents(rest) + documents(held)) == sorted(TEXTS)
    assert rest.bytes + held.bytes == whole.bytes
    assert rest.tokens.dtype == whole.tokens.dtype
    assert len({whole.fingerprint, rest.fingerprint, held.fingerprint}) == 3


def test_neither_names_nor_order_nor_copies_change_what_is_held_out(tmp_path):
    _, held = hold_out([corpus(tmp_path / "a", TEXTS)], ByteTokenizer())
    turned = [corpus(tmp_path / "b", TEXTS[:15:-1] * 2), corpus(tmp_path / "c", TEXTS[:16])]
    rests, again = hold_out(turned, ByteTokenizer())
    assert set(documents(again)) == set(documents(held))
    assert not set(documents(again)) & {text for rest in rests for text in documents(rest)}
    assert len(again.tokens) == again.starts[-1] and (np.diff(again.starts) > 0).all()


@pytest.mark.parametrize("texts", [["one long text"], ["the same"] * 5])
def test_a_single_document_is_not_cut_in_two(tmp_path, texts):
    with pytest.raises(UserError, match="too little text to hold some out"):
        hold_out([corpus(tmp_path / "a", texts)], ByteTokenizer())
