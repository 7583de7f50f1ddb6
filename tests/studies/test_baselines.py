"""Baselines on the host: they route, fail where nothing can be known, see what they say."""

import functools

import numpy as np
import pytest
import tiny_corpora
from tiny_corpora import NAMES, TOKENIZER, WINDOW

from cr_jax.data import Corpus, Mixture
from cr_jax.data.experiment_text import RANDOM, Corpora
from cr_jax.errors import UserError
from cr_jax.studies import baselines
from cr_jax.studies.baselines import compression, embedding, hashed_counts, ngram, unknown
from cr_jax.studies.baselines.interface import Baseline, TrainingText

HOST = tuple(baselines.ON_HOST)
LENGTHS = (16, WINDOW)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(ngram, "BITS", 12)
    monkeypatch.setattr(ngram, "_TOKENS", 240)
    monkeypatch.setattr(embedding, "BITS", 10)
    monkeypatch.setattr(embedding, "WIDTH", 12)


@functools.cache
def routed(name):
    return baselines.run(tiny_corpora.corpora(), tiny_corpora.experiment(), LENGTHS, (name,))[name]


@pytest.mark.parametrize("name", HOST)
def test_three_alphabets_are_told_apart(name):
    found = routed(name)
    # Sixteen bytes do not pack, so zstd's answers tie.
    assert found["64"] >= 0.97 and found["16"] >= (0.3 if name == "zstd" else 0.8)
    assert found["per_domain"]["64"].keys() == set(NAMES)
    assert found["64"] == pytest.approx(np.mean(list(found["per_domain"]["64"].values())))
    counts = {n: len(tiny_corpora.corpora().test[n]) for n in NAMES}
    assert {n: sum(row.values()) for n, row in found["confusion"].items()} == counts
    assert found["seconds"].keys() == {"fit", "score"}


@pytest.mark.parametrize("name", HOST)
def test_identical_domains_are_routed_at_chance(name):
    texts = {n: lambda seed, n=n: tiny_corpora.words(n, seed, "letters") for n in NAMES}
    found = baselines.run(tiny_corpora.corpora(texts), tiny_corpora.experiment(), LENGTHS, (name,))
    assert abs(found[name]["64"] - 1 / 3) < 0.17
    per_length = found[name]["ood"]["per_length"]["64"]
    assert abs(per_length["max_score"]["auroc"] - 0.5) < 0.15


@pytest.mark.parametrize("name", HOST)
def test_shuffled_labels_are_routed_at_chance(name):
    """Trained on a mixture of all domains under each name, nothing is left to learn."""
    c = tiny_corpora.corpora()
    mixed = Mixture(list(c.train.values()), [1, 1, 1])
    c = Corpora(c.tokenizer, dict.fromkeys(NAMES, mixed), c.valid, c.test)
    found = baselines.run(c, tiny_corpora.experiment(), LENGTHS, (name,))[name]
    # A domain's windows go one way together, so less than chance is no surprise; more would be.
    assert found["64"] < 1 / 3 + 0.2


@pytest.mark.parametrize("name", HOST)
def test_a_score_depends_on_the_prefix_it_is_for_and_on_all_of_it(name):
    c = tiny_corpora.corpora()
    predict = baselines.fit(name, c, tiny_corpora.experiment(), LENGTHS).predict
    w = c.test["digits"]
    other, shorter = w.tokens.copy(), w.mask.copy()
    other[:, 16:] = c.test["letters"].tokens[0, 16:]
    shorter[:, 16:] = False
    whole, changed, padded = (
        predict(*x, LENGTHS) for x in ((w.tokens, w.mask), (other, w.mask), (w.tokens, shorter))
    )
    assert whole.shape == (2, 3, len(w))
    np.testing.assert_allclose(whole[0], changed[0], rtol=1e-6)
    assert np.abs(whole[1] - changed[1]).max() > 1e-3
    np.testing.assert_allclose(padded[0], whole[0], rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in HOST if n not in ("ngram", "embedding")])
def test_a_generative_score_is_fitted_on_its_own_domain_only(name):
    c = tiny_corpora.corpora()
    without = Corpora(c.tokenizer, {n: c.train[n] for n in ("digits", "letters")}, c.valid, c.test)
    a, b = (baselines.fit(name, x, tiny_corpora.experiment(), LENGTHS) for x in (c, without))
    assert a.independent and b.independent
    w = c.test["marks"]
    all_three, two = (x.predict(w.tokens, w.mask, LENGTHS) for x in (a, b))
    # The same windows of each are drawn: the seed of a domain's windows does not count the others.
    np.testing.assert_allclose(all_three[:, :2], two, rtol=1e-9)


@pytest.mark.parametrize("name", ["naive_bayes", "ppm", "ngram", "embedding"])
def test_unseen_text_is_stranger_than_known(name):
    c = tiny_corpora.corpora(unseen=("marks",))
    found = baselines.run(c, tiny_corpora.experiment(), LENGTHS, (name,))[name]
    at = found["ood"]["per_length"]["64"]["calibrated"]
    assert at["unseen"]["marks"]["auroc"] > 0.9 and at["unseen"][RANDOM]["auroc"] > 0.9
    assert at["per_domain"].keys() == {"digits", "letters"}
    assert found["ood"]["refitted"] == (name not in ("ngram", "embedding"))


def test_oracle_and_chance_frame_the_table():
    found = baselines.run(
        tiny_corpora.corpora(), tiny_corpora.experiment(), LENGTHS, ("oracle", "chance")
    )
    assert found["oracle"]["64"] == 1 and found["chance"]["16"] == pytest.approx(1 / 3)


def test_figures_of_made_up_scores():
    """Domain x scores 1 for itself, its last window 0; y's own windows are right."""
    c = tiny_corpora.corpora(unseen=("marks",))
    sides = {"digits": 0, "letters": 1}

    def predict(tokens, mask, lengths):
        out = np.zeros((len(lengths), 2, len(tokens)))
        letters = (tokens >= ord("a")).any(1)
        out[:, 0] = ~letters
        out[:, 1] = letters
        return out

    found = baselines.measure(Baseline(predict, True, "distance"), c, LENGTHS)
    assert found["per_domain"]["64"] == dict.fromkeys(sides, 1.0)
    assert found["64"] == 1.0
    # Without its own score a domain has 0 where the other has 1.
    told = found["ood"]["per_length"]["64"]["max_score"]
    assert told["auroc"] == 1.0 and told["fpr95"] == 0.0


def test_posterior_rule_keeps_order_where_one_minus_p_underflows():
    scores = np.array([[0.0, 0.0, 0.0], [-50.0, -800.0, 0.0], [-60.0, -900.0, -1.0]])
    own = np.array([[0.0, -1.0]] * 3)
    strange = unknown.novelty_score(scores, np.ones(3, int), "logit", own)["posterior"]
    assert strange[1] < strange[0] < strange[2] < 0
    p = np.exp(scores[:, 2]) / np.exp(scores[:, 2]).sum()
    assert strange[2] == pytest.approx(np.log(1 - p.max()))
    assert "posterior" not in unknown.novelty_score(scores, np.ones(3, int), "distance", own)


def test_hashed_rows_are_root_counts_of_length_one():
    tokens = np.array([[5, 5, 5, 7], [5, 7, 0, 0]], np.int32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    rows = hashed_counts.rows(tokens, mask, 20)
    # 5 three times, 7, 5-5 twice, 5-7: seven n-grams; 5, 7, 5-7: three.
    assert sorted(np.round(rows[0].data ** 2 * 7)) == [1, 1, 2, 3]
    assert sorted(np.round(rows[1].data ** 2 * 3)) == [1, 1, 1]
    shared = set(rows[0].indices) & set(rows[1].indices)
    assert shared == set(rows[1].indices)


def test_bytes_of_windows_and_of_their_prefixes():
    from cr_jax.data.tokenizers.token_table import TokenTable

    class Pieces(TokenTable):
        kind = "made up"

        def encode(self, text):
            return np.zeros(0, np.uint32)

    table = [b"ab", "€".encode()[:1], "€".encode()[1:], b"<0xE2>", b"", b""]
    tokens = np.array([[0, 1, 2, 3], [3, 4, 0, 5]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)
    found, place, ends = compression.ByteTable(Pieces(table, 4, 5, "x")).flat(tokens, mask)
    assert found.tobytes() == "ab€<0xE2><0xE2>ab".encode()
    assert ends.tolist() == [[0, 2, 3, 5, 11], [11, 17, 17, 19, 19]]
    assert place.tolist() == [*range(11), *range(8)]


def test_training_windows_cover_a_corpus_once():
    ids = np.arange(5 * WINDOW).astype(np.uint16)
    c = Corpus(ids, np.array([0, len(ids)]), len(ids), "x", ["x"])
    text = TrainingText(("x",), (c,), TOKENIZER, WINDOW, seed=3)
    tokens, mask = text.windows(0)
    assert np.array_equal(np.sort(tokens.ravel()), ids) and mask.all()
    assert text.windows(0, 2 * WINDOW)[0].shape == (2, WINDOW)


@pytest.mark.parametrize("lengths", [(), (0, 4), (4, WINDOW + 1)])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(UserError, match=f"from 1 to {WINDOW}"):
        baselines.run(tiny_corpora.corpora(), tiny_corpora.experiment(), lengths, ("zstd",))


def test_an_unknown_name_is_refused_before_anything_is_fitted():
    with pytest.raises(UserError, match="no baseline 'svm'"):
        baselines.run(tiny_corpora.corpora(), tiny_corpora.experiment(), LENGTHS, ("zstd", "svm"))
