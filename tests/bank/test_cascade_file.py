"""How many experts a cascade scores: the record on file, and what it refuses."""

import dataclasses

import pytest
from tiny_bank import TEXT, fresh, in_memory, one, stored

from cr_jax.bank import cascade_file
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.files import read_sealed, write_sealed
from cr_jax.errors import UserError
from cr_jax.routing.cascade import Cascade

GOOD = dict(
    min_candidates=2,
    at_least=0.6,
    candidate_margin=0.5,
    offsets={"e0": 0.0, "e1": 0.5, "e2": 0.0},
    agreement=0.7,
    mean_candidates=2.5,
    windows=7,
)


def test_the_fit_is_stored_in_the_bank_and_bound_to_its_experts(tmp_path):
    folder = tmp_path / "bank"
    bank = stored(folder, in_memory(3))
    with pytest.raises(UserError, match="route without it"):
        Cascade.load(folder)
    with pytest.raises(UserError, match="how many experts"):
        cascade_file.read(folder)
    assert Cascade.load(folder, min_candidates=2).min_candidates == 2
    offsets = {"e0": 0.0, "e1": 0.25, "e2": 0.1}
    fitted = CandidateFit(1, 0.5, 1 / 3, offsets, 0.75, 1.5, 12)
    made = Cascade(bank, 1, 3, fitted, 1 / 3, offsets)
    made.save()
    again = Cascade.load(folder)
    assert (again.min_candidates, again.max_windows, again.fitted) == (1, 3, fitted)
    assert (again.candidate_margin, again.offsets) == (1 / 3, offsets)
    exactly = Cascade.load(folder, min_candidates=1)
    assert (exactly.candidate_margin, exactly.offsets, exactly.fitted) == (0, offsets, None)
    assert again.route(TEXT) == made.route(TEXT)
    assert bank.verify() == []
    raw = (folder / "cascade.json").read_bytes()
    (folder / "cascade.json").write_bytes(raw.replace(b'"max_windows": 3', b'"max_windows": 4'))
    with pytest.raises(UserError, match="changed"):
        Cascade.load(folder)
    (folder / "cascade.json").write_bytes(raw)
    other = dataclasses.replace(bank.expert("e1"), params=one(fresh(9), 8))
    bank.remove("e1").add(other)
    with pytest.raises(UserError, match="other experts"):
        Cascade.load(folder)
    # The offsets of other experts are not used.
    assert Cascade.load(folder, min_candidates=1).offsets is None


def test_records_that_make_no_sense(tmp_path):
    stored(tmp_path / "bank", in_memory(3))
    cascade_file.write(tmp_path / "bank", CandidateFit(**GOOD), 5, ("e0", "e1", "e2"), 0.0)
    path = tmp_path / "bank" / "cascade.json"
    raw = read_sealed(path)
    assert cascade_file.read(tmp_path / "bank") == (CandidateFit(**GOOD), 5)
    changed = [
        raw | x
        for x in (
            {"agreement": "0.7"},
            {"agreement": [0.5, 0.7, 1.0]},
            {"min_candidates": "2"},
            {"min_candidates": 9},
            {"max_windows": "all"},
            {"max_windows": None},
            {"max_windows": -1},
            {"candidate_margin": "1"},
            {"candidate_margin": -1.0},
            {"candidate_margin": 10**400},
            {"offsets": {"e0": 0.1}},
            {"offsets": [1.0, 1.0, 1.0]},
            {"offsets": {"e0": 0.0, "e1": 0.0, "e2": 0.0, "e3": 0.0}},
            {"mean_candidates": None},
            {"offsets": {"e0": 0.0, "e1": 0.0, "e2": "0"}},
            {"windows": True},
        )
    ]
    changed += [{k: v for k, v in raw.items() if k != x} for x in (*GOOD, "max_windows", "experts")]
    for value in changed:
        write_sealed(path, value)
        with pytest.raises(UserError) as caught:
            Cascade.load(tmp_path / "bank")
        assert "\n" not in str(caught.value), value


@pytest.mark.parametrize(
    "bad",
    [
        dict(min_candidates=0),
        dict(min_candidates=True),
        dict(windows=0),
        dict(at_least=2.0),
        dict(agreement=0.5),
        dict(agreement=float("nan")),
        dict(agreement=1.5),
        dict(candidate_margin=-0.1),
        dict(candidate_margin=float("nan")),
        dict(candidate_margin=float("inf")),
        dict(mean_candidates=1.9),
        dict(mean_candidates=float("inf")),
        dict(offsets={"e0": -1.0}),
        dict(offsets={"e0": float("nan")}),
    ],
)
def test_fits_that_make_no_sense(bad):
    CandidateFit(**GOOD)
    with pytest.raises(UserError, match="fit them again"):
        CandidateFit(**{**GOOD, **bad})
