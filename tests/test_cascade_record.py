"""How many experts a cascade keeps: the record on file, old and new, and what it refuses."""

import pytest
from tiny_bank import FLAT, SAMPLE, SMALL, TEXT, fresh, in_memory, one, stored

from cr_jax import cascade_record
from cr_jax.bank_folder import read_sealed, write_sealed
from cr_jax.cascade import Cascade
from cr_jax.cascade_record import Choice
from cr_jax.errors import UserError

GOOD = dict(keep=2, at_least=0.6, margin=0.5, offsets={"e0": 0.0, "e1": 0.5, "e2": 0.0},
            agreement=0.7, kept=2.5, windows=7)


def test_the_choice_is_stored_with_the_scouts_and_bound_to_both_banks(tmp_path):
    bank = stored(tmp_path / "bank", in_memory(3))
    scouts = stored(tmp_path / "scouts", in_memory(3, SMALL, seed=7, rule=SAMPLE))
    with pytest.raises(UserError, match="how many experts"):
        Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    assert Cascade.load(tmp_path / "bank", tmp_path / "scouts", keep=2).keep == 2
    offsets = {"e0": 0.0, "e1": 0.25, "e2": 0.1}
    choice = Choice(1, 0.5, 1 / 3, offsets, 0.75, 1.5, 12)
    made = Cascade(scouts, bank, 1, 3, choice, 1 / 3, offsets)
    made.save()
    again = Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    assert (again.keep, again.head, again.choice) == (made.keep, 3, made.choice)
    assert (again.margin, again.offsets) == (1 / 3, offsets)
    exactly = Cascade.load(tmp_path / "bank", tmp_path / "scouts", keep=1)
    assert (exactly.margin, exactly.offsets, exactly.choice) == (0, None, None)
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


def test_a_choice_from_before_there_was_a_margin_is_read_as_it_was_meant(tmp_path):
    pair = tmp_path / "bank", tmp_path / "scouts"
    stored(pair[0], in_memory(3))
    stored(pair[1], in_memory(3, SMALL, seed=7))
    cascade_record.write(*pair, Choice(**GOOD), head=5)
    path = pair[1] / "cascade.json"
    raw = read_sealed(path)
    newer = {"margin", "offsets", "kept"}
    old = {k: v for k, v in raw.items() if k not in newer} | {"agreement": [0.5, 0.7, 1.0]}
    write_sealed(path, old)
    made = Cascade.load(*pair)
    assert (made.keep, made.head, made.margin, made.offsets) == (2, 5, 0, None)
    assert (made.choice.agreement, made.choice.kept, made.choice.windows) == (0.7, 2, 7)
    assert made.route(TEXT) == Cascade(made.scouts, made.bank, 2, head=5).route(TEXT)
    changes = [{"agreement": "0.7"}, {"keep": "2"}, {"keep": 9}, {"agreement": []}, {"head": "all"},
               {"agreement": [0.1, 0.2, 1.0]}, {"head": None}]
    changed = [old | x for x in changes] + [raw | x for x in (
        {"margin": "1"}, {"margin": -1.0}, {"margin": 10**400}, {"offsets": {"e0": 0.1}},
        {"offsets": {"e0": 0.0, "e1": 0.0, "e2": 0.0, "e3": 0.0}}, {"offsets": [1.0, 1.0, 1.0]},
        {"offsets": {"e0": 0.0, "e1": 0.0, "e2": "0"}}, {"head": -1}, {"kept": None},
        {"windows": True})] + [{k: v for k, v in raw.items() if k != x} for x in newer]
    for value in changed:
        write_sealed(path, value)
        with pytest.raises(UserError) as caught:
            Cascade.load(*pair)
        assert "\n" not in str(caught.value), value


@pytest.mark.parametrize("bad", [
    dict(keep=0), dict(keep=True), dict(windows=0), dict(at_least=2.0), dict(agreement=0.5),
    dict(agreement=float("nan")), dict(agreement=1.5), dict(margin=-0.1), dict(margin=float("nan")),
    dict(margin=float("inf")), dict(kept=1.9), dict(kept=float("inf")), dict(offsets={"e0": -1.0}),
    dict(offsets={"e0": float("nan")})])
def test_choices_that_make_no_sense(bad):
    Choice(**GOOD)
    with pytest.raises(UserError, match="choose again"):
        Choice(**{**GOOD, **bad})
