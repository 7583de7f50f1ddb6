"""Easy inputs: deterministic, full windows, and each is what its name says."""

import json
import re

import numpy as np
import pytest

from cr_jax.data import ByteTokenizer, train_sentencepiece
from cr_jax.errors import UserError
from cr_jax.studies.unknown.attacks import attacks, minify

WINDOW, COUNT = 96, 12
KNOWN = {
    "prose": ["The quick brown fox jumps over the lazy dog, again and again. " * 9],
    "verse": ["床前明月光疑是地上霜舉頭望明月低頭思故鄉" * 9],
}
TOKENIZER = ByteTokenizer()


@pytest.fixture(scope="module")
def made():
    return attacks(TOKENIZER, WINDOW, COUNT, 3, KNOWN)


def texts(made, kind):
    return [TOKENIZER.decode(row) for row in made[kind].tokens]


def test_every_kind_has_the_asked_number_of_full_windows(made):
    assert len(made) == 12
    for windows in made.values():
        assert windows.tokens.shape == (COUNT, WINDOW) and windows.mask.all()
        assert windows.tokens.min() >= 0 and windows.tokens.max() < 256
        assert np.array_equal(windows.document, np.arange(COUNT))


def test_the_seed_decides(made):
    same, other = (attacks(TOKENIZER, WINDOW, COUNT, seed, KNOWN) for seed in (3, 4))
    for kind, windows in made.items():
        assert np.array_equal(windows.tokens, same[kind].tokens)
        if kind != "white_space":  # most of its windows have no choice
            assert not np.array_equal(windows.tokens, other[kind].tokens), kind


def test_a_window_does_not_depend_on_how_many_there_are(made):
    few = attacks(TOKENIZER, WINDOW, 3, 3, KNOWN)
    for kind, windows in few.items():
        assert np.array_equal(windows.tokens, made[kind].tokens[:3]), kind


def test_each_text_is_what_its_name_says(made):
    assert all(len(set(row)) == 1 for row in made["repeated_token"].tokens.tolist())
    assert all(not t.strip() for t in texts(made, "white_space"))
    assert len(set(texts(made, "white_space"))) > 5
    for t in texts(made, "repeated_ngram"):
        raw = t.encode()
        assert any(raw[k:] == raw[:-k] for k in range(1, 17)), t
    assert all("Copyright (c)" in t for t in texts(made, "licence"))
    assert all(re.fullmatch(r"[0-9 ]+", t) for t in texts(made, "digits"))
    assert all(re.fullmatch(r"[A-Za-z0-9+/=\n]+", t) for t in texts(made, "base64"))
    assert all(
        re.match(r"[0-9a-f]{96}|[0-9a-f]{8}  [0-9a-f]{2} ", t) for t in texts(made, "hex_dump")
    )
    assert all(t.startswith('[{"id": ') for t in texts(made, "json_numbers"))
    assert all(re.fullmatch(r"[-0-9.,;\t\n]+", t) for t in texts(made, "csv_numbers"))
    assert all(max(map(ord, t)) > 255 for t in texts(made, "random_unicode"))


def test_shuffled_words_keep_words_not_their_order(made):
    prose, verse = texts(made, "shuffled_words")[:2]
    assert set(prose.split()[:-1]) <= set(KNOWN["prose"][0].split())
    assert prose not in KNOWN["prose"][0]
    # A script without spaces is shuffled by character.
    assert set(verse) - {"\ufffd"} <= set(KNOWN["verse"][0])
    assert verse[:20] not in KNOWN["verse"][0]


def test_a_repeated_token_stays_one_token_with_a_tokenizer_that_merges(tmp_path):
    tokenizer = train_sentencepiece(
        [f"alpha beta gamma delta {i} again and again\n" * 3 for i in range(400)], 400, tmp_path
    )
    tokens = attacks(tokenizer, WINDOW, 8, 0, KNOWN)["repeated_token"].tokens
    assert all(np.bincount(row).max() >= 0.9 * WINDOW for row in tokens)
    assert len({int(row[-1]) for row in tokens}) > 2


def test_minified_code_still_does_what_it_did():
    source = '''"""Docstring."""
import json  # a comment


def doubled(number_of_things, other=0):
    """What it does."""
    result = [
        value * 2 for value in range(number_of_things)
    ]

    if not result and other is not None:
        return "empty", other
    return result
'''
    small = minify(source)
    assert len(small) < 0.6 * len(source)
    assert "#" not in small and "Docstring" not in small and "number" not in small
    scope = {}
    exec(compile(small.replace("import a", "import json as a"), "small", "exec"), scope)
    function = next(v for v in scope.values() if getattr(v, "__code__", None))
    assert function(3) == [0, 2, 4] and function(0) == ("empty", 0)
    assert json.dumps(source)  # the module that the sample imports exists


def test_bad_input_is_one_clear_line():
    with pytest.raises(UserError, match="1 or more"):
        attacks(TOKENIZER, WINDOW, 0, 0, KNOWN)
    for known in ({}, {"x": []}, {"x": [" \n"]}):
        with pytest.raises(UserError, match="at least one text"):
            attacks(TOKENIZER, WINDOW, 1, 0, known)
