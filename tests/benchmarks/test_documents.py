"""Documents are judged by margin and residual, and by the residual alone, from the same scores."""

import argparse

import numpy as np
from tiny_bank import documents_of, stored, trained_bank

from benchmarks.bank import documents
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


def test_a_bank_of_other_domains_is_refused(tmp_path):
    folder = stored(tmp_path / "bank", trained_bank()).folder
    (tmp_path / "c.py").write_text(
        "from cr_jax.config import default, domain\n"
        "def get_config():\n"
        "    c = default()\n"
        f"    c.data.domains = {{'other': domain(*['files:{tmp_path}/c.py'] * 3)}}\n"
        "    return c\n"
    )
    argv = ["--config", str(tmp_path / "c.py"), "--bank", str(folder), "--out", "x.json"]
    assert documents.main(argv) == 2
