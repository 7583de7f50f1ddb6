"""kill -9 at random moments of `cr-jax bank grow` -> "kills", "remove_bit_identical".

    python -m benchmarks.continual.kills --root DATA --known code_python literature --new lang_fr \\
        --kills 20 --out results/continual.json

A copy of the bank that ships grows by a stream of real documents, known ones and then also those of
a new domain, until an expert of it is mounted.  The process is killed at moments drawn uniformly
from the time that an uninterrupted run takes, started again, killed again, until it ends by itself;
then a fresh copy.  *lost*: documents that no journal line tells of, or that were unknown and are
neither kept nor an expert's; *half_experts*: folders that are no whole expert; *changed_experts*:
old ones with other bytes; *same_end*: whether each bank has the experts and the journal the
decisions of the uninterrupted run.  *remove_bit_identical*: whether routes and residuals of all
documents are those of the bank before it grew once its new experts are removed.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import cr_jax
from benchmarks.results import answered, commit, versions, write, written
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.bank.files import BankFolder
from cr_jax.data import sources
from cr_jax.errors import UserError

PROGRAM = "import sys; from cr_jax.cli import main; sys.exit(main())"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--root", required=True, type=Path, help="folder of DOMAIN/valid.jsonl.zst")
    p.add_argument("--known", nargs="+", default=["code_python", "literature"])
    p.add_argument("--new", default="lang_fr")
    p.add_argument("--documents", type=int, default=40, help="of each domain")
    p.add_argument("--characters", type=int, default=4000, help="of a document, at most")
    p.add_argument("--steps", type=int, default=60, help="of the new expert's training")
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", required=True)
    return answered("benchmarks.continual.kills", run, p.parse_args(arguments), arguments)


def run(a: argparse.Namespace, command: str) -> None:
    """Measures and writes."""
    chance = random.Random(a.seed)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        texts = stream(a, chance)
        inbox = work / "inbox.jsonl"
        inbox.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
        whole = fresh(work / "whole")
        before = contents(whole)
        began = time.monotonic()
        if (status := start(whole, inbox, a.steps).wait()) != 0:
            raise UserError(f"the uninterrupted run ended with status {status}")
        takes = time.monotonic() - began
        mounted = [n for n in ExpertBank.load(whole, lms=False).names if n.startswith("new-")]
        print(f"uninterrupted: {takes:.0f} s, mounted: {', '.join(mounted) or 'none'}", flush=True)
        figures = {"tried": 0, "runs": 0, "lost": 0, "half_experts": 0, "changed_experts": 0}
        same, moments = True, []
        while figures["tried"] < a.kills:
            own = fresh(work / f"killed-{figures['runs']}")
            while True:
                child = start(own, inbox, a.steps)
                left = a.kills > figures["tried"]
                try:
                    moment = chance.uniform(0, takes)
                    if status := child.wait(moment if left else None):
                        raise UserError(f"a run that was killed before ended with status {status}")
                    break
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                    figures["tried"] += 1
                    moments.append(round(moment, 1))
            found = left_over(own, before, len(set(texts)))
            figures = {k: v + found.get(k, 0) for k, v in figures.items()}
            figures["runs"] += 1
            same &= decisions(own) == decisions(whole)
            shutil.rmtree(own.parent)
            print({**figures, "same_end": same}, flush=True)
        identical = removed(whole, mounted, texts)
        old = written(a.out)
        old["kills"] = {
            **figures,
            "same_end": same,
            "seconds_of_a_run": round(takes, 1),
            "moments": moments,
            "documents": len(texts),
            "mounted": mounted,
            "command": command,
            "commit": commit(),
            "versions": versions(),
        }
        old["remove_bit_identical"] = identical
        write(a.out, json.dumps(old, separators=(",", ":")) + "\n")


def stream(a: argparse.Namespace, chance: random.Random) -> list[str]:
    """Known documents, then known and new ones in random order; no text twice."""
    of = {name: documents(a, name) for name in (*a.known, a.new)}
    known = [t for name in a.known for t in of[name]]
    chance.shuffle(known)
    later = known[len(known) // 2 :] + of[a.new]
    chance.shuffle(later)
    return list(dict.fromkeys(known[: len(known) // 2] + later))


def documents(a: argparse.Namespace, name: str) -> list[str]:
    file = a.root / name / "valid.jsonl.zst"
    if not file.is_file():
        raise UserError(f"{file} is not there: give --root and domains that it has")
    texts = [document.text for document in sources.documents(f"jsonl:{file}")]
    chosen = np.linspace(0, len(texts) - 1, min(a.documents, len(texts))).astype(int)
    return [texts[i][: a.characters] for i in chosen]


def fresh(folder: Path) -> Path:
    """A copy of the bank that ships."""
    folder.mkdir()
    bank = Path(shutil.copytree(pretrained.folder(), folder / "bank"))
    for path in (bank, *bank.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    return bank


def start(bank: Path, inbox: Path, steps: int) -> subprocess.Popen:
    words = ["bank", "grow", "--bank", str(bank), "--inbox", str(inbox), "--jsonl"]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words, "--steps", str(steps)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def contents(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def events(bank: Path) -> list[dict]:
    lines = (bank.parent / "bank.buffer" / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def left_over(bank: Path, before: dict[Path, bytes], count: int) -> dict[str, int]:
    """What a bank that was killed on its way lacks at the end."""
    told, now = events(bank), contents(bank)
    of = lambda kind: [e for e in told if e["event"] == kind]
    unknown = {e["id"] for e in of("document") if not e["known"]}
    used = {key for e in of("found") for key in e["ids"]}
    settled = {e["id"] for e in of("settled")}
    kept = {p.stem for p in (bank.parent / "bank.buffer" / "documents").iterdir()}
    old = [p for p in before if p.parts[0] == "experts"]
    whole = [line for line in BankFolder(bank).verify() if "was set aside" not in line]
    return {
        "lost": count
        - len({e["id"] for e in of("document")})
        + len(unknown - used - settled - kept),
        "half_experts": len(whole),
        "changed_experts": len({p.parts[1] for p in old if now.get(p) != before[p]}),
    }


def decisions(bank: Path) -> tuple:
    """The experts, and of each document whether it was known and whose it is."""
    said = sorted(
        (e["id"], e["known"], e["nearest"]) for e in events(bank) if e["event"] == "document"
    )
    return ExpertBank.load(bank, lms=False).names, said


def removed(bank: Path, names: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether all routing is bit for bit what it was, without the experts that were mounted."""
    for name in names:
        BankFolder(bank).remove(name)
    banks = [ExpertBank.load(folder, lms=False) for folder in (pretrained.folder(), bank)]
    routes = [cr_jax.route_many(b, texts) for b in banks]
    costs = [np.asarray(cr_jax.residual_matrix(b, texts)) for b in banks]
    return bool(names) and repr(routes[0]) == repr(routes[1]) and np.array_equal(*costs)


if __name__ == "__main__":
    sys.exit(main())
