"""A run that moves: other device counts, jit, pmap and sharded state, other numbers of processes.

Every life of a run stops itself by SIGTERM; the next one has other devices.  Compared with a run
that stays on one device: the windows that were really drawn, the losses, the final parameters.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from benchmarks.torture import runs

STEPS, BATCH = 40, 8
WITNESS = "benchmarks/torture/witness.py"
NLL_TOLERANCE = 1e-4  # nats/token; sums over rows are added in another order on other devices


@dataclasses.dataclass(frozen=True)
class Life:
    """One start: so many devices, laid out how, in how many processes of one device each."""

    devices: int
    parallel: str = "jit"
    fsdp: int = 1
    processes: int = 1

    def __str__(self):
        if self.processes > 1:
            return f"{self.processes} processes"
        return f"{self.parallel} {self.devices}" + (f" fsdp {self.fsdp}" if self.fsdp > 1 else "")


CHAINS = {
    "devices": (Life(8), Life(4), Life(2), Life(1), Life(8)),
    "modes": (Life(8, "pmap"), Life(4), Life(2, "pmap"), Life(8, fsdp=2), Life(1)),
    "processes": (Life(1, processes=2), Life(1), Life(1, processes=2)),
}


def run(chains=tuple(CHAINS), steps: int = STEPS) -> dict:
    """-> {"chains": {name: figures}, "windows", "repeated", "skipped"}; steps: a multiple of 40."""
    with runs.place() as where:
        still = _Chain(where, "still", (Life(1),), steps)
        still.run()
        found = {name: _compare(_Chain(where, name, CHAINS[name], steps), still) for name in chains}
    total = lambda key: sum(x[key] for x in found.values())
    return {
        "chains": found,
        "windows": total("windows"),
        "repeated": total("repeated"),
        "skipped": total("skipped"),
        "good": all(
            x["windows_equal"]
            and x["restored_exactly"]
            and x["ended_well"]
            and x["largest_nll_difference"] <= NLL_TOLERANCE
            for x in found.values()
        ),
    }


class _Chain:
    """The lives of one workdir, and what they noted."""

    def __init__(self, where, name: str, lives: tuple[Life, ...], steps: int):
        self.where, self.lives, self.steps = where, lives, steps
        self.workdir = where.workdir(name)
        self.statuses: list[int] = []
        self.draws: dict[int, list[list[str]]] = {}  # step -> the rows of each draw of it
        self.states: list[tuple[int, str, str | None]] = []  # step, saved or restored, digest

    def run(self) -> None:
        for number, life in enumerate(self.lives):
            last = number == len(self.lives) - 1
            stop = 0 if last else (number + 1) * (self.steps // len(self.lives) // 8 * 8)
            self._live(number, life, stop)

    def _live(self, number: int, life: Life, stop: int) -> None:
        settings = {
            "train.steps": self.steps,
            "train.batch": BATCH,
            "parallel": life.parallel,
            "mesh_fsdp": life.fsdp,
            "train.checkpoint_every": 1e9,
        }
        children, notes = [], []
        for i, flags in enumerate(runs.joined(life.processes)):
            notes.append(self.where.folder / f"{self.workdir.name}.{number}.{i}.notes")
            children.append(
                runs.Run(
                    self.where,
                    self.workdir,
                    settings,
                    [WITNESS],
                    life.devices,
                    flags,
                    {"TORTURE_NOTES": str(notes[-1]), "TORTURE_STOP": str(stop)},
                )
            )
        ended = [child.wait() for child in children]
        wanted = 130 if stop else 0
        self.statuses += [status if status != wanted else 0 for status in ended]
        if any(self.statuses):
            raise RuntimeError(f"{life} ended with {ended}: {children[0].last_lines(4)}")
        self._note([_lines(path) for path in notes])

    def _note(self, processes: list[list[dict]]) -> None:
        drawn = [[x for x in lines if "rows" in x] for lines in processes]
        for same in zip(*drawn, strict=True):
            assert len({x["step"] for x in same}) == 1, "processes are at different steps"
            # Process 0 has the first rows of the global batch.
            rows = [row for x in same for row in x["rows"]]
            self.draws.setdefault(same[0]["step"], []).append(rows)
        for line in processes[0]:
            for word in ("saved", "restored"):
                if word in line:
                    self.states.append((line[word], word, line["digest"]))


def _compare(chain: _Chain, still: _Chain) -> dict:
    chain.run()
    # By SIGTERM nothing is trained twice, so each window of the run is drawn exactly once.
    times = [len(draws) for draws in chain.draws.values()]
    wanted = {step: draws[0] for step, draws in still.draws.items()}
    given = {step: draws[0] for step, draws in chain.draws.items()}
    rows = [row for step in sorted(given) for row in given[step]]
    pairs = [
        (a, b)
        for a, b in zip(chain.states, chain.states[1:])
        if a[1:2] == ("saved",) and b[1] == "restored"
    ]
    known = [(a, b) for a, b in pairs if a[2] and b[2]]
    curves = [runs.curve(c.workdir) for c in (chain, still)]
    same_lines = [x[:2] for x in curves[0]] == [x[:2] for x in curves[1]]
    return {
        "lives": [str(life) for life in chain.lives],
        "steps": chain.steps,
        "ended_well": not any(chain.statuses) and same_lines,
        "windows": len(rows),
        "repeated": len(rows) - len(set(rows)) + (sum(times) - len(times)),
        "skipped": len({r for x in wanted.values() for r in x} - set(rows)),
        "windows_equal": given == wanted,
        "restores": len(pairs),
        "restores_compared": len(known),
        "restored_exactly": all(a[0] == b[0] and a[2] == b[2] for a, b in known)
        and all(a[0] == b[0] for a, b in pairs)
        and len(pairs) == len(chain.lives) - 1,
        "largest_nll_difference": max(abs(a[2] - b[2]) for a, b in zip(*curves)),
        "largest_weight_difference": _furthest(chain.workdir, still.workdir),
    }


def _furthest(one: Path, other: Path) -> float:
    """The largest difference of any parameter, relative to the largest parameter."""
    found = 0.0
    a, b = runs.weights(one), runs.weights(other)
    for name in a:
        left, right = load(a[name]), load(b[name])
        largest = max(float(np.abs(x).max()) for x in right.values())
        found = max(found, max(float(np.abs(left[k] - right[k]).max()) for k in right) / largest)
    return float(found)


def _lines(path: Path) -> list[dict]:
    return [json.loads(x) for x in path.read_text().splitlines()]
