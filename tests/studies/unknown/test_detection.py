"""Detection figures by hand, and against scikit-learn."""

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.studies.unknown import detection


def auroc(known, unknown):
    return detection.auroc(np.array(known, float), np.array(unknown, float))


def fpr_at_95(known, unknown, share=0.95):
    return detection.fpr_at_95(np.array(known, float), np.array(unknown, float), share)


def test_auroc_by_hand():
    assert auroc([1, 2], [3, 4]) == 1
    assert auroc([3, 4], [1, 2]) == 0
    assert auroc([1, 1], [1, 1]) == 0.5
    assert auroc([1, 3], [2, 3]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)


def test_fpr_by_hand():
    known = np.arange(1, 21)  # 19 of 20 let in at 19
    assert fpr_at_95(known, [19, 19.5, 30, 1]) == 0.5
    assert fpr_at_95(known, [100]) == 0
    assert fpr_at_95([1], [1, 2]) == 0.5


def test_a_transform_that_keeps_order_changes_nothing():
    random = np.random.default_rng(0)
    a, b = random.normal(0, 1, 50), random.normal(1, 1, 60)
    assert auroc(np.exp(a), np.exp(b)) == auroc(a, b)
    assert auroc(a, b) == pytest.approx(1 - auroc(b, a))


def test_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(1)
    for _ in range(20):
        a = random.integers(0, 9, random.integers(1, 60)).astype(float)  # many ties
        b = random.integers(3, 12, random.integers(1, 60)).astype(float)
        label, score = np.r_[np.zeros(a.size), np.ones(b.size)], np.r_[a, b]
        assert auroc(a, b) == pytest.approx(metrics.roc_auc_score(label, score), abs=1e-12)
        fpr, tpr, _ = metrics.roc_curve(1 - label, -score, drop_intermediate=False)
        assert fpr_at_95(a, b) == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min(), abs=1e-12)


def test_bad_scores():
    for known, unknown in (([], [1]), ([1], []), ([np.nan], [1])):
        for figure in (auroc, fpr_at_95):
            with pytest.raises(UserError, match="at least one"):
                figure(known, unknown)
    with pytest.raises(UserError, match="share"):
        fpr_at_95([1], [1], 0.0)
