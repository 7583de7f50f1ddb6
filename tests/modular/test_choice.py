"""Runs' branches are compared on valid, if they began as one seed."""

import pytest

from cr_jax.files import write_sealed
from cr_jax.modular import choice

LOSSES = {"a": {"wiki": 3.5, "logs": 4.0}, "b": {"wiki": 3.25, "logs": 4.5}}


@pytest.fixture
def workdirs(tmp_path):
    def write(name, start="seed", losses=None):
        place = tmp_path / name / "lm" / "branches"
        place.mkdir(parents=True)
        losses = LOSSES[name] if losses is None else losses
        best = {n: {"step": 1, "valid_nll": x, "last_valid_nll": 9.0} for n, x in losses.items()}
        note = {"format": 1, "record": {"job": {"start": start}}, "note": {"best": best}}
        write_sealed(place / "stage.json", note)
        return str(tmp_path / name)

    return write


def test_each_domain_has_the_run_with_the_lowest_loss_of_a_best_look(workdirs, capsys):
    assert choice.main([workdirs("a"), workdirs("b")]) == 0
    head, wiki, logs = capsys.readouterr().out.splitlines()
    assert head.split() == ["domain", "a", "b"]
    assert wiki.split() == ["wiki", "3.500", "3.250*"]
    assert logs.split() == ["logs", "4.000*", "4.500"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": "other"}, "of different seeds"),
        ({"losses": {}}, "had no looks"),
        (None, "stage.json is missing"),
    ],
)
def test_what_cannot_be_compared_is_one_line(workdirs, tmp_path, capsys, options, says):
    other = str(tmp_path / "b") if options is None else workdirs("b", **options)
    assert choice.main([workdirs("a"), other]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert choice.main([]) == 2
