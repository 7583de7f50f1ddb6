"""How many experts a cascade keeps: the record on file, and what it refuses."""

import pytest
from tiny_bank import FLAT, TEXT, fresh, in_memory, one, stored

from cr_jax.bank import cascade_file
from cr_jax.bank.cascade_file import Choice
from cr_jax.bank.files import read_sealed, write_sealed
from cr_jax.errors import UserError
from cr_jax.routing.cascade import Cascade

GOOD = dict(keep=2, at_least=0.6, margin=0.5, offsets={"e0": 0.0, "e1": 0.5, "e2": 0.0},
            agreement=0.7, kept=2.5, windows=7)


def test_the_choice_is_stored_in_the_bank_and_bound_to_its_experts(tmp_path):
    folder = tmp_path / "bank"
    bank = stored(folder, in_memory(3))
    with pytest.raises(UserError, match="route without it"):
        Cascade.load(folder)
    with pytest.raises(UserError, match="how many experts"):
        cascade_file.read(folder)
    assert Cascade.load(folder, keep=2).keep == 2
    offsets = {"e0": 0.0, "e1": 0.25, "e2": 0.1}
    choice = Choice(1, 0.5, 1 / 3, offsets, 0.75, 1.5, 12)
    made = Cascade(bank, 1, 3, choice, 1 / 3, offsets)
    made.save()
    again = Cascade.load(folder)
    assert (again.keep, again.head, again.choice) == (made.keep, 3, made.choice)
    assert (again.margin, again.offsets) == (1 / 3, offsets)
    exactly = Cascade.load(folder, keep=1)
    assert (exactly.margin, exactly.offsets, exactly.choice) == (0, offsets, None)
    assert again.route(TEXT) == made.route(TEXT)
    assert bank.verify() == []
    raw = (folder / "cascade.json").read_bytes()
    (folder / "cascade.json").write_bytes(raw.replace(b'"head": 3', b'"head": 4'))
    with pytest.raises(UserError, match="changed"):
        Cascade.load(folder)
    (folder / "cascade.json").write_bytes(raw)
    kept = bank.scouts["e1"]
    bank.remove("e1")
    bank.add("e1", one(fresh(9), 8), FLAT, scout=kept)
    with pytest.raises(UserError, match="other experts"):
        Cascade.load(folder)
    assert Cascade.load(folder, keep=1).offsets is None  # those of other experts are not used


def test_records_that_make_no_sense(tmp_path):
    stored(tmp_path / "bank", in_memory(3))
    cascade_file.write(tmp_path / "bank", Choice(**GOOD), 5, ("e0", "e1", "e2"), 0.0)
    path = tmp_path / "bank" / "cascade.json"
    raw = read_sealed(path)
    assert cascade_file.read(tmp_path / "bank") == (Choice(**GOOD), 5)
    changed = [raw | x for x in (
        {"agreement": "0.7"}, {"agreement": [0.5, 0.7, 1.0]}, {"keep": "2"}, {"keep": 9},
        {"head": "all"}, {"head": None}, {"head": -1}, {"margin": "1"}, {"margin": -1.0},
        {"margin": 10**400}, {"offsets": {"e0": 0.1}}, {"offsets": [1.0, 1.0, 1.0]},
        {"offsets": {"e0": 0.0, "e1": 0.0, "e2": 0.0, "e3": 0.0}}, {"kept": None},
        {"offsets": {"e0": 0.0, "e1": 0.0, "e2": "0"}}, {"windows": True})]
    changed += [{k: v for k, v in raw.items() if k != x} for x in (*GOOD, "head", "experts")]
    for value in changed:
        write_sealed(path, value)
        with pytest.raises(UserError) as caught:
            Cascade.load(tmp_path / "bank")
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
