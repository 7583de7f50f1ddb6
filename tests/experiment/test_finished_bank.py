"""What a run stores: experts, bigram models of their own text, calibrations, a cascade."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_bank
import tiny_run

from cr_jax import router
from cr_jax.bank import ExpertBank, LanguageModels, parameters
from cr_jax.config import EvalConfig, Scoring
from cr_jax.data import ByteTokenizer, eval_windows, load_corpus
from cr_jax.errors import UserError
from cr_jax.experiment import finished_bank, run
from cr_jax.routing.cascade import Cascade
from cr_jax.scoring import batching, devices
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram import with_bigram
from cr_jax.scoring.calibrate import calibrate

RULE = Scoring(predicted=True, bigram_weight=0.4)


GIVEN = {}  # what the run gave `finished_bank.make`, by the argument's name


@pytest.fixture(scope="module")
def finished(one_device, tmp_path_factory):
    """A run by a rule with a bigram_weight: (its texts' folder, settings, bank)."""
    make = finished_bank.make

    def noted(experiment, text, trained, folder, say, language_models=None):
        GIVEN.update(experiment=experiment, text=text, trained=trained, say=say)
        return make(experiment, text, trained, folder, say, language_models)

    folder = tmp_path_factory.mktemp("finished")
    tiny_run.write(folder)
    e = tiny_run.experiment(folder, steps=3)
    e = dataclasses.replace(
        e,
        model=dataclasses.replace(e.model, predictive=True),
        scoring=RULE,
        studies=(),
        eval=EvalConfig(batch=16, windows=24, calibration_windows=40, examples=0),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished_bank, "MIN_CANDIDATES", 1)  # two experts then have a cascade
        patch.setattr(finished_bank, "make", noted)
        run.run(e, folder / "run")
    return folder, e, ExpertBank.load(folder / "run" / "bank")


def corpus(folder, name, split):
    return load_corpus([f"files:{folder}/{name}-{split}.txt"], ByteTokenizer(), folder / "cache")


def test_a_bigram_model_has_counted_its_experts_training_text_once(finished):
    folder, _, bank = finished
    for name in tiny_run.NAMES:
        tokens = corpus(folder, name, "train").tokens
        alone = np.exp(-bank.bigrams[name].alone.astype(float))
        ones = np.bincount(tokens, minlength=len(alone))
        kinds = np.count_nonzero(ones)
        want = (ones + kinds / len(alone)) / (ones.sum() + kinds)
        np.testing.assert_allclose(alone, want, rtol=0.05)  # all but the last part of a window


def test_calibrations_are_made_under_the_rule_with_the_bigram_model(finished):
    folder, e, bank = finished
    for row, name in enumerate(tiny_run.NAMES):
        valid = eval_windows(corpus(folder, name, "valid"), e.model.window, limit=40)
        params = jax.tree.map(lambda x, row=row: np.asarray(x[row]), bank.params)
        want = calibrate(bank.model, with_bigram(params, bank.bigrams[name]), valid, rule=RULE)
        without = calibrate(
            bank.model, params, valid, rule=dataclasses.replace(RULE, bigram_weight=0.0)
        )
        length = e.model.window
        got = bank.calibration[name].residuals[length]
        np.testing.assert_allclose(got, want.residuals[length], rtol=1e-4)
        assert (np.abs(got - without.residuals[length]) > 0.1).all()


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_language_models_are_stored_with_their_experts(finished, tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(finished_bank, "MIN_CANDIDATES", 1)
    plain, names = finished[2], tiny_run.NAMES
    config = dataclasses.replace(tiny_bank.TINY_LM, vocab_size=plain.model.vocab_size)
    first, *own = (tiny_bank.one(tiny_bank.fresh(9, config), i) for i in range(3))
    given = LanguageModels(config, first, dict(zip(names, own, strict=True)))
    e = dataclasses.replace(GIVEN["experiment"], bank_dtype=dtype)
    made = finished_bank.make(**{**GIVEN, "experiment": e}, folder=tmp_path, language_models=given)
    loaded = ExpertBank.load(tmp_path / "bank")
    assert made.folder == loaded.folder and made.verify() == [] and loaded.lm == config
    for bank in (made, loaded):
        for name, params in given.experts.items():
            want = tiny_bank.leaves(parameters.rounded(params, dtype))
            assert tiny_bank.leaves(bank.expert(name).lm) == want
        assert tiny_bank.leaves(bank.seed_lm) == tiny_bank.leaves(parameters.rounded(first, dtype))
    if dtype == "float32":  # and the experts are those of a run without
        for name in names:
            a, b = (tiny_bank.leaves(bank.expert(name).params) for bank in (made, plain))
            assert a == b
    assert Cascade.load(tmp_path / "bank").bank.names == names
    again = finished_bank.make(**GIVEN, folder=tmp_path)  # without: an earlier bank's go
    assert again.lm is None and ExpertBank.load(tmp_path / "bank").verify() == []


def test_a_cascade_is_chosen(finished):
    folder = finished[0]
    cascade = Cascade.load(folder / "run" / "bank")
    assert cascade.fitted.agreement >= 0.999 and cascade.fitted.mean_candidates >= 1
    assert cascade.route("0123 456").bigrams.keys() == set(tiny_run.NAMES)


def test_a_run_that_cannot_choose_a_cascade_still_has_its_bank(finished, monkeypatch, capsys):
    folder, e, _ = finished

    def fail(*args, **kwargs):
        raise UserError("digits has a single validation window")

    monkeypatch.setattr(finished_bank, "MIN_CANDIDATES", 1)
    monkeypatch.setattr(finished_bank.Cascade, "fit", fail)
    run.run(e, folder / "run")
    assert "no cascade: digits has a single validation window" in capsys.readouterr().out
    assert not ExpertBank.load(folder / "run" / "bank").verify()
    with pytest.raises(UserError, match="route without it"):
        Cascade.load(folder / "run" / "bank")


def test_experts_that_share_devices_in_training_share_them_while_they_are_measured(
    finished, tmp_path, monkeypatch
):
    """config.mesh_fsdp=2 on four devices: the same bank, and no large leaf whole on a device."""
    monkeypatch.setattr(devices, "SMALL", 64)
    monkeypatch.setattr(batching, "local_accelerators", lambda: 4)
    monkeypatch.setattr(finished_bank, "MIN_CANDIDATES", 1)
    given = {k: GIVEN[k] for k in ("text", "trained", "say")}
    e = dataclasses.replace(GIVEN["experiment"], mesh_fsdp=2)
    bank = finished_bank.make(e, folder=tmp_path, **given)
    large = [x for x in jax.tree.leaves(bank.params) if x[0].size > 64]
    assert len(large) > 3
    for leaf in large:
        assert {s.data.size for s in leaf.addressable_shards} == {leaf.size // 2}
    assert not bank.verify()
    for name in bank.names:
        ours, theirs = (b.calibration[name].residuals for b in (bank, finished[2]))
        assert ours.keys() == theirs.keys()
        for length, values in ours.items():
            np.testing.assert_allclose(values, theirs[length], atol=1e-4)
    # Whatever sizes are asked for later, the parameters stay where they lie.
    some = GIVEN["text"].test[bank.names[0]]
    alone = router.score_bank(finished[2], some, BatchSizes(windows=4))
    found = router.score_bank(bank, some, BatchSizes(windows=4))
    np.testing.assert_allclose(found.residual, alone.residual, rtol=1e-4)
