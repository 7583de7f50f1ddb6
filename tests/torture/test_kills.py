"""What the tortures conclude from their figures.  The short version of kill -9 itself is
tests/training/test_resume.py.
"""

import subprocess
import sys

import pytest

from benchmarks.torture import __main__ as torture
from benchmarks.torture import runs


def test_a_difference_of_one_figure_or_byte_is_no_equality(tmp_path):
    for name in ("a", "b"):
        expert = tmp_path / name / "bank" / "experts" / "digits"
        expert.mkdir(parents=True)
        (expert / "params.safetensors").write_bytes(b"weights")
        (tmp_path / name / "metrics.jsonl").write_text(
            '{"step": 1, "expert": "digits", "nll": 2.5, "gradient_norm": 1.0, "seconds": 3}\n'
        )
    a, b = tmp_path / "a", tmp_path / "b"
    assert runs.same(a, b)
    (b / "metrics.jsonl").write_text((b / "metrics.jsonl").read_text().replace("2.5", "2.6"))
    assert not runs.same(a, b)
    (b / "metrics.jsonl").write_bytes((a / "metrics.jsonl").read_bytes())
    (b / "bank" / "experts" / "digits" / "params.safetensors").write_bytes(b"weighty")
    assert not runs.same(a, b)


def test_what_a_kill_left_undone_is_seen(tmp_path):
    folder = tmp_path / "checkpoints"
    for name in ("3", "4", "5.orbax-checkpoint-tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "3.json").touch()
    assert runs.newest(tmp_path) == 3 and runs.sealed(tmp_path) == [3]
    assert sorted(runs.unfinished(tmp_path)) == ["4", "5.orbax-checkpoint-tmp"]
    (folder / "4.json").touch()
    (folder / "5.orbax-checkpoint-tmp").rmdir()
    assert runs.newest(tmp_path) == 4 and runs.unfinished(tmp_path) == []


def test_the_last_logged_step_is_that_of_a_whole_line(tmp_path):
    assert runs.logged(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n{"step": 5}\n{"step": 6')
    assert runs.logged(tmp_path) == 5


def test_a_limit_holds_for_a_child_that_runs(tmp_path):
    code = (
        "import sys; sys.stdin.readline()\n"
        f"file = open({str(tmp_path / 'x')!r}, 'wb', buffering=0)\n"
        "try: print(file.write(bytes(1000)) + file.write(bytes(1000)))\n"
        "except OSError as error: print(error.strerror)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    runs.limit_file_size(child, 1000)
    assert child.communicate("\n")[0].strip() == "File too large"


def kept():
    """Figures of a run of everything in which all went well."""
    part = {
        "cut": 2,
        "cut_detected": 2,
        "missing": 2,
        "missing_detected": 2,
        "flips": 9,
        "detected": 9,
    }
    disk = {"one_line": True, "older_intact": True, "bit_exact": True}
    return torture.collect(
        {
            "kills": {
                "kills": 3,
                "resumed": 3,
                "bit_exact": True,
                "kills_inside_a_save": 1,
                "seconds": 1,
                "lock": {"second_run_refused": True},
                "sigterm": {"signals": 2, "saved": 2, "steps_lost": 0, "bit_exact": True},
            },
            "flips": {
                "flips": 18,
                "flips_detected": 18,
                "checkpoint": part,
                "bank": dict(part),
                "cost": {"megabytes": 1, "check_mb_per_s": 1},
                "seconds": 1,
                "restarts": {"cut": True},
            },
            "fuzz": {
                "fuzz_inputs": 9,
                "fuzz_failures": 0,
                "seconds": 1,
                "kinds": {"text": {"inputs": 9, "failures": 0, "refused": 4}},
            },
            "elastic": {
                "good": True,
                "seconds": 1,
                "chains": {
                    "devices": {
                        "lives": ["jit 8", "jit 1"],
                        "windows": 4,
                        "repeated": 0,
                        "skipped": 0,
                        "largest_nll_difference": 0.0,
                    }
                },
            },
            "processes": {
                "kills": 3,
                "kills_of_one": 2,
                "kills_inside_a_save": 1,
                "resumed": 3,
                "bit_exact": True,
                "failures": [],
                "others_ended": 2,
                "others_told_in_one_line": 2,
                "longest_seconds_to_end": 0.5,
                "seconds": 1,
                "sigterm": {"signals": 2, "saved": 2, "steps_lost": 0, "bit_exact": True},
                "frozen": {
                    "other_ended": True,
                    "seconds": 101,
                    "one_line": True,
                    "woken_one_ended": True,
                    "bit_exact": True,
                },
            },
            "disks": {"full": None, "read_only": disk, "seconds": 1},
        }
    ) | {"seconds": 1}


BROKEN = [
    ("resumed",),
    ("bit_exact",),
    ("flips_detected",),
    ("fuzz_failures",),
    ("elastic", "good"),
    ("sigterm", "steps_lost"),
    ("sigterm", "saved"),
    ("processes", "resumed"),
    ("processes", "bit_exact"),
    ("processes", "others_ended"),
    ("processes", "others_told_in_one_line"),
    ("processes", "sigterm", "saved"),
    ("processes", "sigterm", "steps_lost"),
    ("processes", "frozen", "other_ended"),
    ("lock", "second_run_refused"),
    ("disks", "read_only", "one_line"),
    ("details", "flips", "bank", "cut_detected"),
    ("details", "flips", "restarts", "cut"),
]


def test_when_all_is_kept_it_says_so():
    assert torture.good(kept())
    shown = torture.table(kept())
    assert "all kept: yes" in shown and "NO" not in shown and "not possible here" in shown


@pytest.mark.parametrize("path", BROKEN, ids=".".join)
def test_one_broken_promise_is_enough(path):
    found = kept()
    *groups, last = path
    place = found
    for group in groups:
        place = place[group]
    place[last] = not place[last] if isinstance(place[last], bool) else place[last] + 1
    assert not torture.good(found)
    assert "all kept: NO" in torture.table(found)
