"""The study of a run: its experts stay as they were, and the section says what was found."""

import dataclasses

import numpy as np
import pytest
import tiny_bank
import tiny_corpora

from cr_jax.errors import UserError
from cr_jax.studies import registry
from cr_jax.studies.continual import entry
from cr_jax.studies.evaluation import score_domains
from cr_jax.studies.interface import Context


@pytest.fixture(scope="module")
def context():
    texts = {
        f"e{i}": lambda seed, k=k: tiny_corpora.words(k, seed)
        for i, k in enumerate(tiny_corpora.NAMES)
    }
    text = tiny_corpora.corpora(texts, window=tiny_bank.TINY.window)
    experiment = dataclasses.replace(tiny_corpora.experiment(), model=tiny_bank.TINY)
    bank = tiny_bank.in_memory(3)
    return Context(experiment, text, bank, score_domains(bank, text.test))


@pytest.fixture(scope="module")
def report(context):
    return entry.run(context)


def test_scores_are_the_run_s_own(context):
    scores = entry.of_run(context)
    for name in context.bank.names:
        np.testing.assert_array_equal(scores.test[name], context.scores[name].residual)
        assert scores.valid[name].shape == (3, len(context.text.valid[name]))
        assert 0 <= scores.base[name] <= 1


def test_experts_stay_bit_for_bit_and_a_changed_one_is_noticed(context, report, monkeypatch):
    still = report["continual"]["before_routing"]
    assert still["bit_identical"] is still["constant"] is True
    windows = {n: w.spread(2) for n, w in context.own_test.items()}
    assert entry.bit_identical(context.bank, windows, 64)
    other = tiny_bank.in_memory(2, seed=1)  # as if a mount had touched the experts
    monkeypatch.setattr(type(context.bank), "select", lambda bank, names: other)
    assert not entry.bit_identical(context.bank, windows, 64)


def test_the_section_says_what_is_lost_and_where(report):
    section = entry.section(report)
    assert section.rows[0][0] == "plain" and {len(r) for r in section.rows} == {6}
    assert "bit for bit" in section.finding and "flips per mount" in section.finding
    still = {**report["continual"]["before_routing"], "bit_identical": False}
    changed = {"continual": {**report["continual"], "before_routing": still}}
    assert "do NOT stay" in entry.section(changed).finding


def test_the_study_has_a_name_and_wants_three_domains():
    assert registry.STUDIES["continual"] is entry.STUDY
    experiment = tiny_corpora.experiment()
    entry.STUDY.check(experiment)
    data = dataclasses.replace(
        experiment.data, domains=dict(list(experiment.data.domains.items())[:2])
    )
    with pytest.raises(UserError, match="needs 3 or more"):
        entry.STUDY.check(dataclasses.replace(experiment, data=data))
