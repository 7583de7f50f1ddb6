"""A bank can be asked to route by another rule; it then ranks by it and judges nothing."""

import dataclasses
import math
import types

import numpy as np
import pytest
import tiny_bank

from cr_jax import router
from cr_jax.cli import main
from cr_jax.config import SEEN, Scoring
from cr_jax.errors import UserError
from cr_jax.routing.cascade import Cascade
from cr_jax.routing.explain import explain
from cr_jax.routing.options import RouteOptions

TEXT = tiny_bank.TEXT


@pytest.fixture(scope="module")
def predictive():
    """Experts that rebuild and predict; the bank's own rule gives bigrams a share."""
    model = dataclasses.replace(tiny_bank.TINY, predictive=True)
    return tiny_bank.in_memory(4, model, rule=Scoring(predicted=True, bigram_weight=0.3))


@pytest.mark.parametrize(
    ("rule", "scoring"), [("rebuild", SEEN), ("code_length", Scoring(predicted=True))]
)
def test_another_rule_ranks_as_a_bank_of_that_rule_does(predictive, rule, scoring):
    found = router.route(predictive, TEXT, RouteOptions(rule=rule))
    want = router.route(dataclasses.replace(predictive, scoring=scoring), TEXT)
    assert found.residuals == want.residuals and found.ranked == want.ranked
    own = router.route(predictive, TEXT)
    assert found.residuals != own.residuals  # the rules do differ here
    assert all(math.isnan(p) for p in found.p_values.values())
    assert found.known is None and found.expert == found.nearest
    assert own.known is not None
    nll = explain(predictive, TEXT, RouteOptions(rule=rule), windows=99).nll
    means = dict(zip(found.ranked, nll.mean(1), strict=True))
    assert means == pytest.approx(found.residuals, rel=1e-5)


def test_the_banks_own_rule_by_its_name_is_still_calibrated():
    bank = tiny_bank.in_memory(2)  # its rule is the paper's
    assert router.route(bank, TEXT, RouteOptions(rule="rebuild")) == router.route(bank, TEXT)


def test_what_cannot_be_ranked_is_one_line(predictive):
    with pytest.raises(UserError, match="encoders do not predict"):
        router.route(tiny_bank.in_memory(2), TEXT, RouteOptions(rule="code_length"))
    with pytest.raises(UserError, match="rank by 'bank', 'rebuild' or 'code_length'"):
        # As a caller without the tests' type checker would meet it.
        RouteOptions.__post_init__(
            types.SimpleNamespace(**{**vars(RouteOptions()), "rule": "gate"})
        )
    with pytest.raises(UserError, match="goes with exact routing"):
        Cascade(predictive, 2).route(TEXT, RouteOptions(rule="rebuild"))


def test_the_command_says_that_nothing_was_judged(tmp_path, capsys):
    model = dataclasses.replace(tiny_bank.TINY, predictive=True)
    tiny_bank.stored(tmp_path / "bank", tiny_bank.in_memory(2, model, rule=Scoring(predicted=True)))
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    words = ["route", "--bank", str(tmp_path / "bank"), str(text)]
    lines = {}
    for rule in ("bank", "rebuild", "code_length"):
        assert main([*words, "--rule", rule]) == 0
        lines[rule] = capsys.readouterr().out
    assert "p -  (not calibrated for this rule)" in lines["rebuild"]
    assert lines["code_length"] == lines["bank"]  # the same rule, so the same line
    numbers = [
        np.array(line.split("|")[1].split("(")[0].replace(",", " ").split()[1::2], float)
        for line in (lines["bank"], lines["rebuild"])
    ]
    assert not np.allclose(np.sort(numbers[0]), np.sort(numbers[1]))
    assert main([*words, "--rule", "rebuild", "--cascade"]) == 2
    assert "exact routing" in capsys.readouterr().err
