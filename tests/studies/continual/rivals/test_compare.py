"""Rivals of a run on three alphabets: what is known of them must come out."""

import dataclasses

import numpy as np
import pytest
import tiny_bank
import tiny_corpora

from cr_jax.config import RIVALS, ContinualConfig
from cr_jax.errors import UserError
from cr_jax.studies.continual import entry
from cr_jax.studies.continual.measured import of_run
from cr_jax.studies.continual.rivals import choosers, compare, compressors
from cr_jax.studies.evaluation import score_domains
from cr_jax.studies.interface import Context

ORDER = ("e0", "e1")  # two stages: each compiles anew
TRIED = tuple(n for n in RIVALS if n != "joint")


@pytest.fixture(scope="module")
def context():
    texts = {
        e: lambda seed, k=k: tiny_corpora.words(k, seed) for e, k in zip(ORDER, tiny_corpora.NAMES)
    }
    text = tiny_corpora.corpora(texts, window=tiny_bank.TINY.window)
    experiment = tiny_corpora.experiment(steps=60)
    model = dataclasses.replace(tiny_bank.TINY, encoder_blocks=0, decoder_blocks=0)
    experiment = dataclasses.replace(
        experiment,
        model=model,
        optimizer=dataclasses.replace(experiment.optimizer, name="adamw"),
        continual=ContinualConfig(TRIED, replay_windows=64, ewc_weight=30.0),
    )
    bank = tiny_bank.in_memory(2, model)
    return Context(experiment, text, bank, score_domains(bank, text.test))


@pytest.fixture(scope="module")
def methods(one_device, context):
    return compare.run(context, of_run(context), ORDER, "typicality_2")


def test_every_rival_and_the_experts_are_there(methods):
    assert methods.keys() == {*TRIED, "experts, plain", "experts, typicality_2"}
    assert (*compressors.NAMES, *choosers.NAMES) == RIVALS
    for name in choosers.NAMES:
        assert {"acc", "bwt", "flip_rate", "tra"} <= methods[name].keys()


def test_a_compressor_in_sequence_forgets_and_others_less(methods):
    sequential = methods["sequential"]
    assert sequential["bwt"] < -0.05 and sequential["bwt"] < methods["ewc"]["bwt"]
    assert sequential["bwt"] < methods["replay"]["bwt"]
    assert sequential["acc"] < methods["replay"]["acc"]
    matrix = np.array(sequential["matrix"])
    assert matrix.shape == (2, 2) and matrix[0, 0] > matrix[1, 0]
    assert sequential["code_length"]["bwt"] > 0  # nats/token rise


def test_gates_and_counts_choose_among_the_experts(methods):
    assert methods["gate_all"]["acc"] > 0.8 and methods["ngrams"]["acc"] > 0.9
    for name in choosers.NAMES:
        assert 0 <= methods[name]["flip_rate"] <= 1 and methods[name]["fwt"] == 0
        assert methods[name]["acc"] <= 1 and methods[name]["bwt"] <= 0.5
    kept = {n: methods[n]["stored_bytes"] for n in choosers.NAMES}
    assert kept["gate_new"] == 0 < kept["gaussian"] and kept["gate_all"] is kept["ngrams"] is None


def test_no_rival_without_tokens_packed_text_and_undecayed_parameters(context):
    e = context.experiment
    compare.check(e)
    for change, says in (
        ({"data": dataclasses.replace(e.data, mode="padded")}, "packed"),
        ({"train": dataclasses.replace(e.train, steps=0, seconds=5.0)}, "train.steps or tokens"),
        ({"optimizer": dataclasses.replace(e.optimizer, weight_decay=0.1)}, "weight_decay=0"),
    ):
        bad = dataclasses.replace(e, **change)
        with pytest.raises(UserError, match=says):
            entry.check(bad)
        entry.check(dataclasses.replace(bad, continual=ContinualConfig()))
    assert compare.steps_of(dataclasses.replace(e.train, steps=0, tokens=1000), 10) == 13
