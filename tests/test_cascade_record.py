"""How many experts a cascade keeps: agreement, the choice made by it, and its record on file."""

import numpy as np
import pytest
from tiny_bank import FLAT, SAMPLE, SMALL, TEXT, fresh, in_memory, one, stored, windows

from cr_jax import cascade, router
from cr_jax.cascade import Cascade, agreement, choose_keep
from cr_jax.cascade_record import Choice
from cr_jax.errors import UserError


def test_windows_without_a_winner_do_not_count_as_agreement():
    scouts, exact = np.array([[0.0, 1, 0], [1, 0, 1]]), np.array([[0.0, 0, np.nan], [1, 1, np.nan]])
    assert agreement(scouts, exact).tolist() == [0.5, 1]
    with pytest.raises(UserError, match="scores no token"):
        agreement(scouts[:, 2:], exact[:, 2:])


def test_agreement_by_hand():
    exact = np.array([[1.0, 5, 5, 5], [2, 1, 9, 9], [3, 2, 1, 1]])  # winners 0, 1, 2, 2
    scouts = np.array([[1.0, 1, 1, 1], [2, 3, 2, 2], [3, 2, 1.5, 3]])  # ranks 0, 2, 1, 2
    np.testing.assert_allclose(agreement(scouts, exact), [1 / 4, 2 / 4, 1])
    np.testing.assert_allclose(agreement(exact, exact), [1, 1, 1])


def test_the_fewest_experts_that_agree_are_kept(monkeypatch):
    bank, scouts = in_memory(3), in_memory(3, SMALL, seed=7)
    # Places of the exact winner, always e0, among the scouts, for the windows of each expert.
    places = {"e0": [0] * 10, "e1": [0] * 9 + [1], "e2": [0] * 4 + [2]}
    mine = {n: windows(len(r)) for n, r in places.items()}
    by_scout = {0: [0.0, 1, 2], 1: [1.0, 0, 2], 2: [2.0, 0, 1]}
    for at_least, keep in ((0.8, 1), (0.9, 1), (0.92, 2), (0.95, 3), (1.0, 3)):
        queue = [np.array([by_scout[k] for k in r]).T for r in places.values()]
        monkeypatch.setattr(cascade, "scout_residuals", lambda *a, q=queue, **k: q.pop(0))
        monkeypatch.setattr(router, "route_all", lambda b, w, **k: router.WindowRoutes(
            np.tile([[0.0], [1.0], [2.0]], len(w.tokens)), w.document, np.zeros((3, 1))))
        choice = choose_keep(scouts, bank, mine, at_least=at_least)
        assert choice.agreement == pytest.approx(((1 + 0.9 + 0.8) / 3, (1 + 1 + 0.8) / 3, 1))
        assert (choice.keep, choice.windows) == (keep, 25)


def test_the_choice_is_stored_with_the_scouts_and_bound_to_both_banks(tmp_path):
    bank = stored(tmp_path / "bank", in_memory(3))
    scouts = stored(tmp_path / "scouts", in_memory(3, SMALL, seed=7, rule=SAMPLE))
    with pytest.raises(UserError, match="how many experts"):
        Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    assert Cascade.load(tmp_path / "bank", tmp_path / "scouts", keep=2).keep == 2
    made = Cascade.choose(scouts, bank, {n: windows(9) for n in bank.names}, at_least=0.5, head=3)
    made.save()
    again = Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    assert (again.keep, again.head, again.choice) == (made.keep, 3, made.choice)
    assert again.route(TEXT) == made.route(TEXT)
    assert scouts.verify() == [] == bank.verify()
    raw = (tmp_path / "scouts" / "cascade.json").read_bytes()
    (tmp_path / "scouts" / "cascade.json").write_bytes(raw.replace(b'"head": 3', b'"head": 4'))
    with pytest.raises(UserError, match="changed"):
        Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    (tmp_path / "scouts" / "cascade.json").write_bytes(raw)
    bank.remove("e1")
    bank.add("e1", one(fresh(9), 8), FLAT)
    with pytest.raises(UserError, match="other experts"):
        Cascade.load(tmp_path / "bank", tmp_path / "scouts")


@pytest.mark.parametrize("bad", [
    dict(keep=0), dict(keep=3), dict(keep=True), dict(windows=0), dict(at_least=2.0),
    dict(agreement=()), dict(agreement=(0.5, float("nan"))), dict(at_least=0.9, keep=1)])
def test_choices_that_make_no_sense(bad):
    good = dict(keep=2, at_least=0.6, agreement=(0.5, 1.0), windows=7)
    Choice(**good)
    with pytest.raises(UserError, match="choose again"):
        Choice(**{**good, **bad})
