"""All tortures, two at a time, one table of figures and results/torture.json.

python -m benchmarks.torture --out results/torture.json     (make torture; under 20 minutes)
python -m benchmarks.torture --quick                        (a few of each, 3 minutes)
python -m benchmarks.torture --part flips                   (one of them, its raw figures)
"""

import argparse
import concurrent.futures
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results import commit, versions, write
from benchmarks.torture import processes, runs
from cr_jax.errors import UserError

# Longest first: two cores work on two of them at a time.
LONG = {
    "kills": {"kills": 50, "terms": 5},
    "processes": {"kills": 20, "terms": 3},
    "fuzz": {"inputs": 10_000},
    "elastic": {},
    "flips": {"checkpoint_flips": 250, "bank_flips": 250, "megabytes": 256},
    "disks": {},
}
QUICK = {
    "kills": {"kills": 3, "terms": 1, "steps": 40},
    "processes": {"kills": 2, "terms": 1, "steps": 40, "frozen": False},
    "fuzz": {"inputs": 500},
    "elastic": {"chains": ("processes",)},
    "flips": {"checkpoint_flips": 20, "bank_flips": 20, "megabytes": 64},
    "disks": {},
}


def main(arguments: list[str] | None = None) -> int:
    """-> 0 when nothing was lost, missed or wrong, 1 otherwise, 2 for a file that cannot be
    written."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", default="", metavar="FILE", help="where the figures go as JSON")
    p.add_argument("--quick", action="store_true", help="a few of each")
    p.add_argument("--part", choices=tuple(LONG), help="one of them, in this process")
    a = p.parse_args(arguments)
    settings = QUICK if a.quick else LONG
    if a.part:
        print(json.dumps(_run(a.part, settings[a.part])))
        return 0
    began = time.monotonic()
    parts = _in_pairs(a.quick)
    found = {
        **collect(parts),
        "seconds": round(time.monotonic() - began),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "command": "python -m benchmarks.torture"
        + (" --quick" if a.quick else "")
        + (" --out results/torture.json" if a.out else ""),
    }
    print(table(found))
    try:
        if a.out:
            write(a.out, json.dumps(found, indent=1) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if good(found) else 1


def collect(parts: dict[str, dict]) -> dict:
    """The parts' figures as results/torture.json holds them."""
    kills, flips, fuzz, elastic = (parts[k] for k in ("kills", "flips", "fuzz", "elastic"))
    return {
        "kills": kills["kills"],
        "resumed": kills["resumed"],
        "bit_exact": kills["bit_exact"],
        "flips": flips["flips"],
        "flips_detected": flips["flips_detected"],
        "fuzz_inputs": fuzz["fuzz_inputs"],
        "fuzz_failures": fuzz["fuzz_failures"],
        "elastic": elastic,
        "sigterm": kills["sigterm"],
        "lock": kills["lock"],
        "disks": {k: v for k, v in parts["disks"].items() if k != "seconds"},
        "processes": {k: v for k, v in parts["processes"].items() if k != "seconds"},
        "checking": flips["cost"],
        "details": {
            "kills": {k: v for k, v in kills.items() if k not in ("sigterm", "lock")},
            "flips": {k: v for k, v in flips.items() if k != "cost"},
            "fuzz": fuzz,
            "seconds": {name: part["seconds"] for name, part in parts.items()},
        },
    }


def good(found: dict) -> bool:
    """Whether every promise was kept."""
    sigterm, flips = found["sigterm"], found["details"]["flips"]
    cases = [case for case in found["disks"].values() if case is not None]
    return (
        found["kills"] == found["resumed"]
        and found["bit_exact"]
        and found["flips"] == found["flips_detected"]
        and not found["fuzz_failures"]
        and found["elastic"]["good"]
        and all(found["lock"].values())
        and sigterm["signals"] == sigterm["saved"] > 0 == sigterm["steps_lost"]
        and sigterm["bit_exact"]
        and processes.good(found["processes"])
        and all(
            flips[k][f"{kind}_detected"] == flips[k][kind]
            for k in ("checkpoint", "bank")
            for kind in ("cut", "missing")
        )
        and all(flips.get("restarts", {}).values())
        and all(case[k] for case in cases for k in ("one_line", "older_intact", "bit_exact"))
    )


def table(found: dict) -> str:
    """The figures for people."""
    kills, flips = found["details"]["kills"], found["details"]["flips"]
    yes = lambda value: "yes" if value else "NO"
    rows = [
        (
            "kill -9",
            f"{found['kills']} kills ({kills['kills_inside_a_save']} left a save undone)",
            f"{found['resumed']} resumed, bit-exact {yes(found['bit_exact'])}",
        ),
        (
            "SIGTERM",
            f"{found['sigterm']['signals']} signals",
            f"{found['sigterm']['saved']} saved, {found['sigterm']['steps_lost']} steps lost, "
            f"bit-exact {yes(found['sigterm']['bit_exact'])}",
        ),
        ("two runs, one workdir", "1", f"refused {yes(all(found['lock'].values()))}"),
    ]
    rows += _rows_of_processes(found["processes"], yes)
    for name, case in found["disks"].items():
        told = (
            "not possible here"
            if case is None
            else (
                f"one line {yes(case['one_line'])}, older step whole {yes(case['older_intact'])}, "
                f"then bit-exact {yes(case['bit_exact'])}"
            )
        )
        rows.append((f"disk: {name.replace('_', ' ')}", "1", told))
    for name in ("checkpoint", "bank"):
        part = flips[name]
        rows += [
            (f"bit flips, {name}", str(part["flips"]), f"{part['detected']} detected"),
            (
                f"cut and missing files, {name}",
                str(part["cut"] + part["missing"]),
                f"{part['cut_detected'] + part['missing_detected']} detected",
            ),
        ]
    cost = found["checking"]
    rows.append(("cost of checking", f"{cost['megabytes']} MB", f"{cost['check_mb_per_s']} MB/s"))
    for chain in found["elastic"]["chains"].values():
        rows.append(
            (
                f"moved: {' -> '.join(chain['lives'])}",
                f"{chain['windows']} windows",
                f"{chain['repeated']} repeated, {chain['skipped']} skipped, nll within "
                f"{chain['largest_nll_difference']:.0e}",
            )
        )
    for name, kind in found["details"]["fuzz"]["kinds"].items():
        rows.append(
            (
                f"hostile input: {name}",
                f"{kind['inputs']:,}",
                f"{kind['failures']} failures ({kind['refused']:,} refused)",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, f"{found['seconds']} s; all kept: {yes(good(found))}"])


def _rows_of_processes(found: dict, yes) -> list[tuple[str, str, str]]:
    sigterm, frozen = found["sigterm"], found["frozen"]
    of_one = found["kills_of_one"]
    rows = [
        (
            "kill -9, two processes",
            f"{found['kills']} kills, {of_one} of one alone "
            f"({found['kills_inside_a_save']} left a save undone)",
            f"{found['resumed']} resumed, bit-exact {yes(found['bit_exact'])}; the other ended "
            f"{found['others_ended']}/{of_one}, within {found['longest_seconds_to_end']:g} s, "
            f"with one line {found['others_told_in_one_line']}/{of_one}",
        ),
        (
            "SIGTERM to one of two",
            f"{sigterm['signals']} signals",
            f"{sigterm['saved']} saved by both, {sigterm['steps_lost']} steps lost, "
            f"bit-exact {yes(sigterm['bit_exact'])}",
        ),
    ]
    if frozen:
        rows.append(
            (
                "one of two stands still",
                "1",
                f"the other ended {yes(frozen['other_ended'])}"
                f", after {frozen['seconds']} s, then bit-exact {yes(frozen['bit_exact'])}",
            )
        )
    return rows


def hardware() -> str:
    """The processor and how many of its cores there are."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.machine()}"


def _run(name: str, settings: dict) -> dict:
    began = time.monotonic()
    found = importlib.import_module(f"benchmarks.torture.{name}").run(**settings)
    return {**found, "seconds": round(time.monotonic() - began)}


def _in_pairs(quick: bool) -> dict[str, dict]:
    """Each part in a process of its own."""

    def one(name):
        command = [
            sys.executable,
            "-m",
            "benchmarks.torture",
            "--part",
            name,
            *(["--quick"] if quick else []),
        ]
        done = subprocess.run(
            command,
            cwd=runs.ROOT,
            env=runs.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {found['seconds']} s", flush=True)
        return name, found

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = dict(pool.map(one, LONG))
    return found


if __name__ == "__main__":
    sys.exit(main())
