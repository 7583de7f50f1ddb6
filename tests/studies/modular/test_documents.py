"""What is shown of spliced windows is who speaks each token, decided by the tokens before."""

import numpy as np
import pytest

from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.data.windows import Windows
from cr_jax.studies.modular.documents import MOST, spoken_documents
from cr_jax.studies.modular.nats import DomainNats

L, NAMES = 64, ("a", "b")


@pytest.fixture
def spliced():
    """Half of each window is a's text and half is b's."""
    text = b"one two three four five six seven " * 2
    tokens = np.tile(np.frombuffer(text[:L], np.uint8).astype(np.int32), (6, 1))
    label = np.tile(np.repeat([0, 1], L // 2), (6, 1))
    nats = np.stack([np.where(label == e, 1.0, 3.0) for e in (0, 1)]).astype(np.float32)
    mask = np.ones(tokens.shape, bool)
    d = DomainNats(mask, mask.astype(int), nats, np.full(mask.shape, 2, np.float32), label=label)
    return Windows(tokens, mask, np.arange(6)), d


def test_the_expert_changes_after_the_text_does(spliced):
    windows, d = spliced
    found = spoken_documents(windows, d, NAMES, ByteTokenizer())
    assert (found["every"], found["memory"], len(found["windows"])) == (4, 16, MOST)
    for window in found["windows"]:
        assert "".join(t["piece"] for t in window) == bytes(windows.tokens[0].tolist()).decode()
        said = [t["expert"] for t in window]
        assert said[:4] == ["seed"] * 4 and said[4:32] == ["a"] * 28
        change = said.index("b")
        assert 32 < change <= 32 + 12 and change % 4 == 0 and set(said[change:]) == {"b"}
        assert [t["label"] for t in window] == ["a"] * 32 + ["b"] * 32
        assert [t["nats"] for t in window[:5]] == [2, 2, 2, 2, 1]
    late = [t for w in found["windows"] for t in w[4:]]
    share = sum(t["expert"] == t["label"] for t in late) / len(late)
    assert found["label_share"] == pytest.approx(share) and share == 48 / 60


def test_later_tokens_change_nothing_before_them(spliced):
    windows, d = spliced
    before = spoken_documents(windows, d, NAMES, ByteTokenizer())["windows"]
    d.experts[:, :, 40:] = 9
    after = spoken_documents(windows, d, NAMES, ByteTokenizer())["windows"]
    assert [w[:40] for w in before] == [w[:40] for w in after] and before != after


def test_ids_of_no_text_are_shown_as_none(spliced):
    windows, d = spliced
    windows.tokens[0, 5] = 383  # a vocabulary that was rounded up
    assert spoken_documents(windows, d, NAMES, ByteTokenizer())["windows"][0][5][
        "piece"
    ].startswith("<")
