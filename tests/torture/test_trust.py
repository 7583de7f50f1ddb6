"""The collector of results/trust.json finds what is wrong, and nothing where all is well."""

import json
import subprocess
import sys

import pytest

from benchmarks.torture import failures, runs, trust

TOY = """
import json, sys
from pathlib import Path
from benchmarks.torture.failures import Change, tortured
from cr_jax.host.files import write_whole

library, root = map(Path, sys.argv[1:])
root.mkdir()
file = root / "state"

def prepare():
    file.write_text("old")

def state():
    try:
        return file.read_text()
    except OSError as error:
        return str(error)

changes = {
    "whole": Change(prepare, lambda: write_whole(file, "new") and None, state),
    "in place": Change(prepare, lambda: file.write_text("new") and None, state),
}
print(json.dumps(tortured(changes, library, root, 1)))
"""


@pytest.mark.skipif(not failures.compiler(), reason="no C compiler")
def test_every_operation_fails_once_and_a_change_in_place_is_caught(tmp_path):
    library = failures.built(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", TOY, str(library), str(tmp_path / "root")],
        cwd=runs.ROOT,
        env=runs.environment() | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    whole, in_place = found["by"]["whole"], found["by"]["in place"]
    assert whole["operations"] == whole["recovered"] >= 4 * 4  # open, write, close, rename
    assert in_place["recovered"] < in_place["operations"]
    assert found["first_failures"][0].startswith("in place: ")


def test_links_hold_and_leaks_are_seen(monkeypatch):
    monkeypatch.setattr(trust, "PLACES", ("experts/e0",))
    monkeypatch.setattr(trust, "COMMANDS", (("verify",), ("remove", "e0")))
    monkeypatch.setattr(trust, "PAYLOADS", ("\x1b[2J",))
    assert trust.links() == {"tried": 2, "escaped": 0}
    monkeypatch.setattr(trust, "_said", lambda argv: (0, "\x1b[2J"))
    assert trust.links() == {"tried": 2, "escaped": 1}  # verify called it whole
    assert trust.terminal() == {"payloads": 1, "raw": 25}


def test_the_stored_figures_are_good():
    place = runs.ROOT / "results" / "trust.json"
    found = json.loads(place.read_text())
    assert trust.good(found)
    worse = {**found, "links": {**found["links"], "escaped": 1}}
    assert not trust.good(worse)
    written = found["write_failures"]
    assert written["operations"] > 50
    assert not trust.good({**found, "write_failures": {**written, "recovered": 1}})
