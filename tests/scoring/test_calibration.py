"""Calibration keeps its promise: p-values are uniform at home, merged ones too, and by hand."""

import functools
import json

import numpy as np
import pytest
from tiny_bank import BYTES, TINY, fresh, one, trained_bank, windows

from cr_jax import router
from cr_jax.bank import Expert, ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.scoring import calibrate as calibrate_module
from cr_jax.scoring.calibrate import _of_documents, calibrate
from cr_jax.scoring.calibration import (
    LOW_SHARE,
    Calibration,
    few_documents,
    merged_p,
    p_sums,
    too_few,
    two_sided,
)


def test_p_values_are_uniform_at_home_at_every_length():
    bank = trained_bank()
    fresh_windows = windows(400, 77, 97, 107)
    for length in (8, 11, 16):
        mask = np.broadcast_to(np.arange(16) < length, (400, 16))
        cut = Windows(fresh_windows.tokens, mask, fresh_windows.document)
        p = router.route_windows(bank, cut).p_values[0]
        if length == 11:
            assert not np.isnan(p).any()  # compared at length 8: close to uniform, not exact
            continue
        for alpha in (0.05, 0.2, 0.5, 0.8):
            assert abs((p <= alpha).mean() - alpha) < 0.09, (length, alpha)


def test_calibration_uses_the_windows_it_is_given(monkeypatch):
    params, own = one(fresh(1), 0), windows(30)
    made = calibrate(TINY, params, own)
    assert set(made.residuals) == {8, 16}
    assert {k: v.size for k, v in made.residuals.items()} == {8: 30, 16: 29}
    bank = ExpertBank(TINY, BYTES).mount(Expert("e", params, made))
    residuals = router.route_windows(bank, own).residuals[0, :-1]
    np.testing.assert_allclose(made.residuals[16], np.sort(residuals), rtol=1e-6)
    monkeypatch.setattr(calibrate_module, "MOST", 10)
    fewer = calibrate(TINY, params, own).residuals
    assert {k: v.size for k, v in fewer.items()} == {8: 10, 16: 10}
    assert set(fewer[16]) <= set(made.residuals[16])


def test_conformal_p_values_by_hand():
    known = Calibration({8: np.array([1.0, 2.0, 2.0, 3.0]), 32: np.array([10.0])})
    p = lambda r, n: known.p_value(np.array([r]), np.array([n]))[0]
    assert p(0.5, 8) == 1.0
    assert p(2.0, 8) == 4 / 5  # ties count as reached
    assert p(2.5, 31) == 2 / 5
    assert p(9.0, 8) == 1 / 5
    assert p(9.0, 32) == p(9.0, 500) == 1.0
    assert np.isnan(p(9.0, 7))
    again = Calibration.from_json(json.loads(json.dumps(known.to_json())))
    assert again.to_json() == known.to_json()


def test_p_values_of_synthetic_residuals():
    random = np.random.default_rng(0)
    known = Calibration({16: np.sort(random.normal(1, 0.2, 1000))})
    at = np.full(4000, 16)
    home = known.p_value(random.normal(1, 0.2, 4000), at)
    assert np.abs(np.sort(home) - np.linspace(0, 1, 4000)).max() < 0.05
    away = known.p_value(random.normal(3, 0.2, 4000), at)
    assert away.max() < 0.01
    # Documents of 1 to 6 windows, all alike (the worst dependence): still at most alpha.
    for count in (1, 2, 6):
        merged = np.array(
            [merged_p(*p_sums(np.full(count, p), np.full(count, 16))[:3]) for p in home]
        )
        assert (merged <= 0.1).mean() <= 0.1 + 0.02


def tails(made, residuals, length=16):
    at = np.full(residuals.shape, length)
    return made.p_value(residuals, at), made.low_p_value(residuals, at)


def test_two_sided_p_values_by_hand():
    made = Calibration({8: np.array([1.0, 2.0, 2.0, 3.0])})
    high, low = tails(made, np.array([0.5, 2.0, 2.5, 9.0]), 8)
    np.testing.assert_allclose(low, [1 / 5, 4 / 5, 4 / 5, 1.0])
    np.testing.assert_allclose(high, [1.0, 4 / 5, 2 / 5, 1 / 5])
    np.testing.assert_allclose(
        two_sided(high, low),
        [1, 0.8 / (1 - LOW_SHARE), 0.4 / (1 - LOW_SHARE), 0.2 / (1 - LOW_SHARE)],
    )
    assert two_sided(0.9, 0.001) == 0.001 / LOW_SHARE and two_sided(1.0, 1.0) == 1
    assert np.isnan(two_sided(np.nan, np.nan))


def test_two_sided_p_values_are_uniform_on_exchangeable_windows():
    """Over many calibrations, each with new windows of its own; each side has its share."""
    random, p, low_side = np.random.default_rng(3), [], []
    for _ in range(40):
        made = Calibration({16: np.sort(random.normal(1, 0.2, 999))})
        high, low = tails(made, random.normal(1, 0.2, 500))
        p.append(two_sided(high, low))
        low_side.append(low / LOW_SHARE < 0.5)
    p, low_side = np.concatenate(p), np.concatenate(low_side)
    for alpha in (0.05, 0.1, 0.2, 0.5, 0.9):
        error = 4 * np.sqrt(alpha * (1 - alpha) * (1 / len(p) + 1 / (40 * 999)))
        assert abs((p <= alpha).mean() - alpha) < error, alpha
    assert low_side.mean() == pytest.approx(LOW_SHARE / 2, abs=0.005)


@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_text_below_all_that_was_calibrated_is_refused_and_the_middle_is_not(alpha):
    made = Calibration({16: np.sort(np.random.default_rng(4).normal(3, 0.2, 1000))})
    high, low = tails(made, np.array([0.5, 3.0, 6.0]))
    p = two_sided(high, low)
    assert p[0] < alpha < p[1] and p[2] < alpha
    assert high[0] == 1.0  # one-sided, it is the most usual of all
    for count in (1, 2, 40):  # documents of such windows alone
        sums = lambda r, n=count: [p_sums(x, np.full(n, 16)) for x in tails(made, np.full(n, r))]
        (*high_sums, n), (low_sum, *_) = sums(0.5)
        assert made.document_p(*high_sums, n, low_sum) < alpha
        (*high_sums, n), (low_sum, *_) = sums(3.0)
        assert made.document_p(*high_sums, n, low_sum) > alpha


def test_too_few_residuals_to_ever_refuse_are_named():
    of = lambda n: Calibration({8: np.linspace(1, 9, 900), 16: np.linspace(1, 9, n)})
    for alpha, least in ((0.05, 20), (0.3, 3), (0.5, 2), (1.0, 1), (0.00105, 996)):
        for n in (least - 1, least, least + 1):
            if not 0 < n <= 1000:
                continue
            p = two_sided(of(n).p_value(np.array([99.0]), np.array([16])), 1.0)[0]
            said = too_few({"a": of(n), "b": of(1000)}, alpha)
            assert (said is not None) == (p >= alpha) == (n < least)
            if said:
                assert f": a {n}; give {least} or more" in said and "\n" not in said
    assert too_few({"a": of(1)}, 0) is None and too_few({}, 0.05) is None


def test_experts_of_few_documents_are_named_with_their_number():
    values = lambda n: np.linspace(0, 1, n)
    of = lambda n: Calibration({16: values(50)}, {2: values(n), 4: values(n // 2)} if n else {})
    assert few_documents({}) is few_documents({"a": of(100), "b": of(400)}) is None
    said = few_documents({"many": of(100), "some": of(99), "none": of(0)})
    assert "some 99, none below 20" in said and "many" not in said and "\n" not in said
    assert few_documents({"some": of(99)}, enough=99) is None


def test_merging_p_values_by_hand():
    merge = lambda p, n: merged_p(*p_sums(np.array(p), np.array(n))[:3])
    assert merge([0.3], [16]) == pytest.approx(0.3)
    assert merge([0.1, 0.3], [16, 16]) == pytest.approx(0.4)
    assert merge([0.9, 0.9], [16, 16]) == 1.0
    assert merge([0.1, np.nan], [16, 3]) == pytest.approx(0.1)
    assert np.isnan(merge([np.nan], [3])) and np.isnan(merge([np.nan, np.nan], [3, 4]))
    assert merge([0.02, 1.0], [90, 10]) == pytest.approx((0.02 * 90 + 10) / 100 / 0.9)


def documents_of(count, documents, spread, level=0.0, seed=0):
    """Windows' residuals [D, K]: windows of one document vary together, documents much more."""
    random = np.random.default_rng(seed)
    return (
        level + random.normal(1, spread, (documents, 1)) + random.normal(0, 0.1, (documents, count))
    )


@functools.cache
def by_documents(spread, seed=0):
    own = documents_of(16, 800, spread, seed=seed)
    windows_only = Calibration({16: np.sort(own.ravel()[::16])})
    sums = lambda rows, k: [
        p_sums(p[:k], np.full(k, 16))
        for p in windows_only.p_value(rows.ravel(), np.full(rows.size, 16)).reshape(rows.shape)
    ]
    means = {k: np.sort([a / b for a, b, *_ in sums(own, k)]) for k in (2, 16)}
    made = Calibration(windows_only.residuals, means)
    return made, lambda rows, k: np.array([made.document_p(*s) for s in sums(rows, k)])


def test_documents_are_judged_by_documents():
    """Where documents vary more than their windows, p-values by documents are uniform at home and
    tell strange documents that the cautious merging lets pass."""
    made, p_of = by_documents(spread=0.3)
    for k in (2, 7, 16):
        home = p_of(documents_of(16, 600, 0.3, seed=1), k)
        for alpha in (0.05, 0.2, 0.5):
            assert abs((home <= alpha).mean() - alpha) < 0.06, (k, alpha)
    away = documents_of(16, 300, 0.05, level=0.55, seed=2)
    sums = [p_sums(made.p_value(r, np.full(16, 16)), np.full(16, 16)) for r in away]
    cautious = np.array([merged_p(*s[:3]) for s in sums])
    assert (p_of(away, 16) < 0.05).mean() > 0.8 > 0.2 > (cautious < 0.05).mean()


@pytest.mark.parametrize("k", [2, 16])
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_two_sided_p_values_of_documents_are_valid(k, spread):
    """Whether documents differ (0.3) or windows do (0.05); both sides err by no more than alpha."""
    p = []
    for seed in range(8):
        made, _ = by_documents(spread, seed)
        rows = documents_of(16, 150, spread, seed=50 + seed)[:, :k]
        for sides in zip(*(x.reshape(rows.shape) for x in tails(made, rows.ravel()))):
            (a, b, c, n), (low, *_) = (p_sums(x, np.full(k, 16)) for x in sides)
            p.append(made.document_p(a, b, c, n, low))
    for alpha in (0.05, 0.2, 0.5):
        assert (np.array(p) <= alpha).mean() <= alpha + 0.035, alpha


def whole_documents(random, spread, documents=300):
    """A calibration on documents of 16 windows, as `calibrate` makes it, full precision too."""
    draw = lambda many, count: (
        random.normal(1, spread, (many, 1)) + random.normal(0, 0.1, (many, count))
    )
    own = draw(documents, 16)
    made = Calibration({16: np.sort(own.ravel()[::7][:900])})
    p = made.p_value(own.ravel(), np.full(own.size, 16)).reshape(own.shape)
    means = {k: np.sort(p[:, :k].mean(1)) for k in (2, 4, 8, 16)}
    return Calibration(made.residuals, means), draw


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_between_calibrated_numbers_of_windows_p_values_stay_valid(spread):
    """Also where windows are independent, so that the mean of 15 varies much less than that of 8.

    The rank at the next higher number alone would not do: it is bold.
    """
    for n in (3, 7, 9, 15):
        random, p, bold = np.random.default_rng(n), [], []
        for _ in range(8):
            made, draw = whole_documents(random, spread)
            new = draw(60, n)
            high, low = (x.reshape(new.shape) for x in tails(made, new.ravel()))
            above = Calibration(
                made.residuals, {n: made.documents[min(k for k in made.documents if k > n)]}
            )
            for a, b in zip(high.sum(1) * 16, low.sum(1) * 16):
                p.append(made.document_p(a, 16 * n, 16, n, b))
                if n == 9:
                    bold.append(above.document_p(a, 16 * n, 16, n, b))
        for alpha in (0.01, 0.05, 0.2):
            error = 4 * np.sqrt(alpha * (1 - alpha) * (1 / len(p) + 1 / (8 * 300)))
            assert (np.array(p) <= alpha).mean() <= alpha + error, (n, alpha)
        if n == 9 and not spread:
            assert (np.array(bold) <= 0.05).mean() > 0.07


def test_one_more_window_of_the_same_never_changes_much():
    made, _ = whole_documents(np.random.default_rng(0), 0.0, 900)
    for mean in (0.3, 0.4, 0.6):
        p = np.array([made.document_p(mean * 16 * n, 16 * n, 16, n) for n in range(2, 40)])
        steps = np.abs(np.diff(p))
        assert steps.max() < 0.6 * np.ptp(p) and np.ptp(p) > 0.05
        assert (steps[14:] == 0).all()  # no number above 16 is calibrated
    share = lambda n: made.document_p(0.4 * 16 * n, 16 * n, 16, n)
    assert share(15) - share(16) < 0.1 * (share(8) - share(16))  # before: all of it
    assert share(16) < share(15) < share(9) < share(8)


def test_means_of_documents_are_as_exact_as_the_texts():
    """Documents that differ in the fifth digit: rounded, all were "as low" or none."""
    exact = np.linspace(0.50001, 0.50004, 100) + 1e-9
    made = Calibration({8: np.array([1.0])}, {2: exact})
    p = lambda c, mean: c.document_p(mean * 16, 16, 8, 2)
    assert p(made, exact[9]) == pytest.approx(11 / 101)
    older = Calibration({8: np.array([1.0])}, {2: np.round(exact, 4)})
    assert p(older, exact[9]) == 1.0  # an older file cannot tell: cautious, was 1 / 101
    assert p(older, 0.4999) == pytest.approx(1 / 101)


def test_the_lower_side_of_documents_by_hand():
    means = np.linspace(0.3, 0.7, 999)
    made = Calibration({8: np.arange(1.0, 101.0)}, {2: means})
    p = lambda mean, low: made.document_p(mean * 16, 16, 8, 2, low * 16)
    assert p(0.8, 0.5) == pytest.approx(1 / 1000 / LOW_SHARE)  # above all documents: its rank
    assert p(0.8, 1e-5) == pytest.approx(2e-5 / LOW_SHARE)  # or the merged windows, if less
    assert p(means[-2], 1e-5) == pytest.approx(3 / 1000 / LOW_SHARE)
    assert p(0.5, 0.5) == pytest.approx(500 / 1000 / (1 - LOW_SHARE), rel=0.01)
    assert p(0.2, 1.0) == pytest.approx(1 / 1000 / (1 - LOW_SHARE))


def test_documents_by_hand():
    made = Calibration(
        {8: np.array([1.0, 2.0])}, {2: np.array([0.1, 0.2, 0.4]), 8: np.array([0.5, 0.6])}
    )
    p = lambda mean, count: made.document_p(mean * 100, 100, 100 // count, count)
    assert p(0.05, 2) == pytest.approx(0.1) and p(0.09, 7) == pytest.approx(0.18)  # merged: less
    assert p(0.099999, 1) == pytest.approx(0.099999) and p(0.49, 8) == 1 / 3
    assert p(0.2, 2) == 3 / 4 and p(0.9, 2) == 1.0
    share = np.log(3 / 2) / np.log(4)  # 3 windows between 2 and 8, where it is below all: 1 / 3
    assert p(0.2, 3) == pytest.approx(3 / 4 * (1 - share) + 1 / 3 * share)
    assert p(0.5, 8) == p(0.55, 99) == 2 / 3
    assert p(0.3, 1) == pytest.approx(0.3)  # a single window is judged as a window
    assert np.isnan(made.document_p(0.0, 0, 0, 0))
    again = Calibration.from_json(json.loads(json.dumps(made.to_json())))
    assert again.to_json() == made.to_json() and set(again.documents) == {2, 8}
    for bad in ({0: [0.5]}, {2: []}, {2: [0.5, 0.4]}, {2: [1.5]}, {2: [np.nan]}):
        with pytest.raises(UserError, match="calibrat"):
            Calibration(made.residuals, {k: np.array(v, float) for k, v in bad.items()})


def test_calibration_on_documents_needs_enough_of_them():
    params, own = one(fresh(1), 0), windows(90, 5)
    whole = lambda count: Windows(
        own.tokens[: 2 * count], own.mask[: 2 * count], np.repeat(np.arange(count), 2)
    )
    few = calibrate(TINY, params, own, documents=whole(19))
    assert not few.documents and few.to_json() == calibrate(TINY, params, own).to_json()
    made = calibrate(TINY, params, own, documents=whole(20))
    assert {k: v.size for k, v in made.documents.items()} == {2: 20}
    bank = ExpertBank(TINY, BYTES).mount(Expert("e", params, made))
    rows = whole(20)
    found = [router.route(bank, rows.take(slice(i, i + 2))).p_values["e"] for i in range(0, 40, 2)]
    # Its own documents take every rank from 1 to 20 once, but for ties.
    assert np.sort(found) == pytest.approx(np.arange(2, 22) / 21, abs=2 / 21)


def test_of_more_documents_than_are_kept_the_high_ones_stay_too():
    made = Calibration({16: np.arange(1.0, 1001.0)})
    means = np.repeat(np.linspace(0, 1001, 1500), 2)
    full = np.ones((3000, 16), bool)
    many = Windows(full.astype(np.int32), full, np.repeat(np.arange(1500), 2))
    kept = _of_documents(made, means, many)[2]
    assert len(kept) == 1000
    np.testing.assert_allclose(np.quantile(kept, [0, 0.5, 1]), [0, 0.5, 1], atol=0.002)


@pytest.mark.parametrize(
    "raw",
    [
        {"format": 1, "residuals": {"8": [1.0]}, "documents": {"2": [2.0]}},
        {"format": 1, "residuals": {"8": [1.0]}, "documents": [2]},
        None,
        [],
        {},
        {"format": 2, "residuals": {"8": [1.0]}},
        {"format": 1, "residuals": {}},
        {"format": 1, "residuals": {"8": []}},
        {"format": 1, "residuals": {"8": [2.0, 1.0]}},
        {"format": 1, "residuals": {"0": [1.0]}},
        {"format": 1, "residuals": {"8": ["x"]}},
        {"format": 1, "residuals": {"8": [float("inf")]}},
        {"format": 1, "residuals": {"8": [1.0] * 1001}},
        {"format": 1, "residuals": {"8": [[1.0]]}},
        {"format": 1, "residuals": [8]},
        {"format": 1, "residuals": {"eight": [1.0]}},
    ],
)
def test_damaged_calibrations(raw):
    with pytest.raises(UserError, match="calibrat"):
        Calibration.from_json(raw)
