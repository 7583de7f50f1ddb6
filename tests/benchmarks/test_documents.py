"""Documents are judged by margin and residual, and by the residual alone, from the same scores."""

import argparse
import dataclasses

import numpy as np
import pytest
from tiny_bank import TINY, documents_of, in_memory, stored, trained_bank

from benchmarks.bank import documents
from cr_jax import router
from cr_jax.config import Scoring
from cr_jax.routing.document import route_of
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import TOO_NEAR
from cr_jax.routing.scored_documents import own_documents, score_documents, with_own_documents
from cr_jax.scoring.batching import BatchSizes


def test_a_text_between_two_experts_is_refused_by_its_margin_alone():
    plain = trained_bank()
    own = {"e0": documents_of(97, 107, 1), "e1": documents_of(113, 123, 2)}
    measured = own_documents(plain, score_documents(plain, own, BatchSizes(2, 16, 128)))
    far = {
        n: type(x)(x.against, x.residuals, {k: m + 50 for k, m in x.margins.items()})
        for n, x in measured.items()
    }
    a = argparse.Namespace(alpha=0.05)
    few = own["e0"].take(np.arange(12))
    rules = lambda own: documents.rules_of(with_own_documents(plain, own))
    row = documents.judged(rules(measured), few, a)
    none = dict.fromkeys(("called_unknown", "by_margin", "by_residual"), 0)
    assert row == {"documents": 4, **none, "nearest": {"e0": 4}, "reasons": {}}
    row = documents.judged(rules(far), few, a)
    assert row["called_unknown"] == row["by_margin"] == 4 and row["by_residual"] == 0
    assert row["reasons"] == {TOO_NEAR: 4}


def test_documents_are_judged_by_their_surprise_where_the_bank_judges_by_it():
    model, rule = dataclasses.replace(TINY, predictive=True), Scoring(predicted=True)
    plain = in_memory(2, model, rule=rule)
    own = {"e0": documents_of(97, 107, 1, 25), "e1": documents_of(113, 123, 2, 25)}
    measured = own_documents(plain, score_documents(plain, own, BatchSizes(2, 16, 128)))
    bank = with_own_documents(plain, measured)
    few = own["e0"].take(slice(0, 2))
    rules = list(documents.rules_of(bank).values())
    for by_surprise, by_margin, _ in documents.judgements(rules, few, RouteOptions()):
        assert by_surprise.witnesses == pytest.approx(router.route(bank, few).witnesses)
        assert "surprise" in by_surprise.witnesses and "surprise" not in by_margin.witnesses
    with pytest.raises(ValueError, match="surprise=True"):
        route_of(bank, few, router.score_bank(bank, few), RouteOptions())


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_bank_of_other_domains_is_refused(tmp_path, capsys):
    folder = stored(tmp_path / "bank", trained_bank()).folder
    (tmp_path / "c.py").write_text(
        "from cr_jax.config import default, domain\n"
        "def get_config():\n"
        "    c = default()\n"
        f"    c.data.domains = {{'other': domain(*['files:{tmp_path}/c.py'] * 3)}}\n"
        "    c.train.steps = 1\n"
        "    return c\n"
    )
    argv = ["--config", str(tmp_path / "c.py"), "--bank", str(folder), "--out", "x.json"]
    assert documents.main(argv) == 2
    assert "no expert 'other'" in capsys.readouterr().err
