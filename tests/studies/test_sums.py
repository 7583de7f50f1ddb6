"""Injected scorers, and the four studies from a real (tiny, untrained) bank end to end."""

import json

import numpy as np
import pytest
import tiny_bank

from cr_jax.data import ByteTokenizer, eval_windows, load_corpus
from cr_jax.errors import UserError
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import blends, lengths
from cr_jax.studies.evaluation import score_domains
from cr_jax.studies.sums import measure, scorer
from cr_jax.studies.unknown import ood

NAMES = ("e0", "e1", "e2", "e3")


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.in_memory(4)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Per expert and split a corpus of letters of its own."""
    folder, rng, found = tmp_path_factory.mktemp("text"), np.random.default_rng(0), {}
    for name, letters in zip(NAMES, ("abcd", "efgh", "ijkl", "mnop"), strict=True):
        for split in ("valid", "test"):
            for i in range(3):
                text = "".join(rng.choice(list(letters), 180))
                (folder / f"{name}-{split}-{i}.txt").write_text(text)
            found[name, split] = load_corpus(
                [f"files:{folder}/{name}-{split}-*.txt"], ByteTokenizer(), folder / "cache"
            )
    return found


def test_the_banks_scorer_is_the_evaluation(bank, corpora):
    windows = {n: eval_windows(corpora[n, "test"], 16) for n in NAMES[:2]}
    mine, theirs = (
        measure(scorer(bank, sizes=BatchSizes(windows=16)), windows),
        score_domains(bank, windows),
    )
    for name in windows:
        np.testing.assert_allclose(mine[name].residual, theirs[name].residual, rtol=1e-5)
        assert np.array_equal(mine[name].correct, theirs[name].correct)
        assert np.array_equal(mine[name].document, windows[name].document)


def test_sums_of_another_shape_and_empty_windows_are_refused(corpora):
    windows = eval_windows(corpora["e0", "test"], 16)
    for wrong in ((3,), (2, 1), (2, len(windows), 1)):
        with pytest.raises(UserError, match="x: a scorer returns sums of shape"):
            measure(lambda w, wrong=wrong: (np.ones(wrong), np.ones(wrong)), {"x": windows})
    windows.mask[2] = False
    with pytest.raises(UserError, match="x: every window needs at least one token"):
        measure(lambda w: (np.ones((2, len(w))),) * 2, {"x": windows})


def test_the_studies_run_from_a_bank_end_to_end(bank, corpora):
    """Untrained experts: figures mean nothing but that every stage takes what the last gave."""
    tokenizer, window, score = (
        bank.tokenizer,
        bank.model.window,
        scorer(bank, sizes=BatchSizes(windows=16)),
    )
    cut = lambda split: {n: eval_windows(corpora[n, split], window, limit=30) for n in NAMES}
    valid, test = cut("valid"), cut("test")

    inputs = ood.windows(tokenizer, test, {}, count=2, seed=0)
    signals = lambda windows: ood.signals(measure(score, windows), windows, tokenizer)
    how = ood.Protocol(generalist="e3", false_alarm=0.05)
    detection = ood.run(bank.names, signals(valid), signals(inputs), how)
    assert set(detection["per_domain"]) >= {"e0", "e1", "e2", "attack/licence"}
    assert "generalist" in detection["scores"] and "complexity" in detection["scores"]

    whole = lambda split: measure(
        score,
        lengths.documents({n: corpora[n, split] for n in NAMES}, window, tokenizer.pad_id, limit=2),
    )
    cuts = {k: measure(score, w) for k, w in lengths.windows(test, (8, 16)).items()}
    routed = lengths.run(bank.names, cuts, whole("test"), whole("valid"))
    assert set(routed["accuracy"]) == {"8", "16", "document"}
    assert routed["windows"]["document"] == dict.fromkeys(NAMES, 2)

    made = {
        layout: measure(score, blends.windows(test["e0"], test["e1"], (0, 50, 100), layout, 4))
        for layout in blends.LAYOUTS
    }
    mixed = blends.run(bank.names, "e0", "e1", made)
    json.dumps([detection, routed, mixed], allow_nan=False)
