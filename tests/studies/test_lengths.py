"""Routing by length and by document on made-up sums; cutting of windows and documents."""

import numpy as np
import pytest

from cr_jax.data import Corpus, Windows
from cr_jax.errors import UserError
from cr_jax.studies import lengths
from cr_jax.studies.sums import Sums


def made(nll, tokens=10, correct=None, document=None):
    nll = np.asarray(nll, float)
    count = nll.shape[1]
    return Sums(
        nll,
        np.zeros(nll.shape, int) if correct is None else np.asarray(correct),
        np.full(count, tokens) if np.isscalar(tokens) else np.asarray(tokens),
        np.arange(count) if document is None else np.asarray(document),
    )


def test_windows_are_cut_to_their_first_tokens():
    tokens = np.arange(24, dtype=np.int32).reshape(3, 8)
    real = np.array([8, 8, 3])
    whole = Windows(tokens, np.arange(8) < real[:, None], np.array([0, 1, 1]))
    cut = lengths.windows({"x": whole}, (2, 4, 8))
    assert [len(cut[n]["x"]) for n in (2, 4, 8)] == [3, 2, 2]  # the short one is left out
    for n in cut:
        assert (cut[n]["x"].mask.sum(-1) == n).all() and cut[n]["x"].mask[:, :n].all()
    assert np.array_equal(cut[4]["x"].tokens, tokens[:2])
    assert np.array_equal(cut[2]["x"].document, [0, 1, 1])
    with pytest.raises(UserError, match=r"\[1, 8\]"):
        lengths.windows({"x": whole}, (9,))
    short = Windows(tokens, np.arange(8) < np.array([[3]] * 3), np.zeros(3, np.int64))
    with pytest.raises(UserError, match="x: no test window has 4 tokens"):
        lengths.windows({"x": short}, (4,))


def test_documents_are_whole_and_apart():
    end, sizes = 99, [3, 11, 6, 20]
    bodies = [100 * (i + 1) + np.arange(n) for i, n in enumerate(sizes)]
    tokens = np.concatenate([np.append(b, end) for b in bodies]).astype(np.uint16)
    starts = np.concatenate([[0], np.cumsum(np.array(sizes) + 1)]).astype(np.int64)
    corpus = Corpus(tokens, starts, 1, "f", list("abcd"))
    found = lengths.documents({"x": corpus}, 8, 0, limit=9, most_tokens=12, least_tokens=5)["x"]
    assert np.array_equal(found.document, [1, 1, 2, 3, 3])
    for i, size in ((1, 11), (2, 6), (3, 12)):
        at = found.document == i
        assert np.array_equal(found.tokens[at][found.mask[at]], bodies[i][:size])
    assert end not in found.tokens[found.mask]
    few = lengths.documents({"x": corpus}, 8, 0, limit=2, least_tokens=5)["x"]
    assert set(few.document.tolist()) == {1, 3}
    with pytest.raises(UserError, match="no test document has 50 tokens"):
        lengths.documents({"x": corpus}, 8, 0, least_tokens=50)


def test_whole_adds_the_windows_of_each_document():
    parts = made(
        [[1, 2, 4, 8], [3, 3, 3, 3]], [5, 6, 7, 8], [[1, 1, 1, 1], [0, 2, 0, 2]], [7, 3, 7, 3]
    )
    found = lengths.whole(parts)
    assert found.document.tolist() == [7, 3] and found.tokens.tolist() == [12, 14]
    assert found.nll.tolist() == [[5, 10], [6, 6]] and found.correct.tolist() == [[2, 2], [0, 4]]


CUT = {
    "x": made([[1, 1, 1, 9], [2, 2, 2, 2]], correct=[[9, 0, 9, 0], [1, 1, 1, 1]]),
    "y": made([[5, 5], [4, 6]]),
}


def test_accuracy_is_the_mean_over_domains_and_confusion_counts_windows():
    found = lengths.run(("x", "y"), {16: CUT, 8: CUT})
    assert list(found["accuracy"]) == ["8", "16"]
    assert found["per_domain"]["16"] == {"x": 0.75, "y": 0.5}
    assert found["accuracy"]["16"] == 0.625 and found["chance"] == 0.5
    assert found["confusion"]["16"] == {"x": {"x": 3, "y": 1}, "y": {"x": 1, "y": 1}}
    assert found["windows"]["8"] == {"x": 4, "y": 2} and found["sequential"] is None
    # By TRA two of x's four; y's tie goes to the first expert.
    assert found["accuracy_tra"]["16"] == pytest.approx((0.5 + 0) / 2)


def test_a_document_is_routed_by_all_its_windows_and_not_by_their_votes():
    one = made([[1, 1, 9], [2, 2, 2]], document=[0, 0, 0])  # two of three for x, the sum for y
    found = lengths.run(("x", "y"), {16: {"x": one, "y": CUT["y"]}}, {"x": one, "y": CUT["y"]})
    assert found["per_domain"]["16"]["x"] == pytest.approx(2 / 3)
    assert found["per_domain"]["document"]["x"] == 0.0


def test_clones_are_at_chance():
    rng = np.random.default_rng(0)
    names = ("a", "b", "c", "d")
    alike = {n: made(rng.normal(20, 1, (1, 800)) + rng.normal(0, 1e-3, (4, 800))) for n in names}
    assert lengths.run(names, {16: alike})["accuracy"]["16"] == pytest.approx(0.25, abs=0.04)


def test_other_domains_are_left_out_and_none_is_an_error():
    found = lengths.run(("x", "z"), {16: CUT})
    assert found["per_domain"]["16"] == {"x": 0.75}
    with pytest.raises(UserError, match="no domain is named after an expert"):
        lengths.run(("p", "q"), {16: CUT})


def test_the_sequential_part_needs_documents_of_both_splits():
    rng = np.random.default_rng(1)

    def docs(home):
        nll = rng.normal(30, 5, (2, 60))
        nll[home] -= 4
        return made(nll, document=np.repeat(np.arange(15), 4))

    split = lambda: {"x": docs(0), "y": docs(1)}
    valid, test = split(), split()
    found = lengths.run(("x", "y"), {16: CUT}, test, valid)["sequential"]
    assert found["documents"] == 30 and found["fixed"][-1]["windows_at_most"] == 4
    assert (
        found["fixed"][-1]["accuracy"]
        == lengths.run(("x", "y"), {16: CUT}, test)["accuracy"]["document"]
    )
