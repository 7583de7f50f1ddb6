"""How fast many files are routed, beside what people use instead -> results/files.json.

    python -m benchmarks.routing.files --config configs/pretrained.py --out results/files.json \
        --config.data.root=DATA [--bank BANK] [--files 1 100 1000] [--exact 100] [--repeats 3]

Files of about 4 kB from the test split of the config's domains, as many of each; every tool is a
process of its own, its start included, on the same files in turn.  accuracy: share of files that
are sent to their domain.  runs: of which the fastest is shown, for other work disturbs a clock;
what all experts score is run once.  scikit-learn: hashed character n-grams (1 to 3) and a linear
classifier that was trained on 300 such files of each domain's train split before the clock starts.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.results import commit, versions, write
from cr_jax import config as settings
from cr_jax.bank import pretrained
from cr_jax.config.command_line import load
from cr_jax.data import documents
from cr_jax.errors import UserError, complain

SIZE = 4096  # bytes of a file
TRAINING = 300  # files of each domain
FEATURES = 1 << 18


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--config", required=True)
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--files", type=int, nargs="+", default=[1, 100, 1000])
    p.add_argument("--exact", type=int, default=100, help="files that all experts score")
    p.add_argument("--repeats", type=int, default=1, help="of which the fastest counts")
    p.add_argument("--out", required=True)
    a, overrides = p.parse_known_args(arguments)
    try:
        record = report(a, overrides)
    except UserError as error:
        complain("error", error)
        return 2
    write(a.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    return 0


def report(a, overrides: Sequence[str]) -> dict:
    """What --out holds."""
    experiment = settings.build(load(a.config, overrides).to_dict())
    rows, root = [], experiment.data.root
    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place), Path(place) / "sklearn.npz"
        domains = experiment.data.domains
        test = {n: pieces(d.test, root, max(*a.files, a.exact)) for n, d in domains.items()}
        train_sklearn({n: pieces(d.train, root, TRAINING) for n, d in domains.items()}, model)
        route = (sys.executable, "-c", "from cr_jax.cli import main; raise SystemExit(main())")
        route = (*route, "route", "--csv", "--bank", a.bank)
        peer = (sys.executable, "-m", "benchmarks.routing.sklearn_files", str(model))
        answers = {}
        for count in sorted({*a.files, a.exact}):
            files = written(folder / str(count), test, count)
            tools = (
                {"cr-jax route": route, "scikit-learn n-grams": peer} if count in a.files else {}
            )
            if count == a.exact:
                tools = {**tools, "cr-jax route --exact": (*route, "--exact")}
                tools.setdefault("cr-jax route", route)
            for tool, command in tools.items():
                times = 1 if "--exact" in command else a.repeats
                tries = [timed(tool, (*command, str(files)), count) for _ in range(times)]
                row, answers[tool, count] = min(tries, key=lambda x: x[0]["seconds"])
                print(row, flush=True)
                rows.append({**row, "runs": times})
    ours, exact = answers["cr-jax route", a.exact], answers["cr-jax route --exact", a.exact]
    seconds = {(row["tool"], row["files"]): row["seconds"] for row in rows}
    most, one = max(a.files), min(a.files)
    return {
        "command": shlex.join(["python", "-m", "benchmarks.routing.files", *sys.argv[1:]]),
        "commit": commit(),
        "versions": versions(),
        "cores": len(os.sched_getaffinity(0)),
        "rows": rows,
        f"ratio_sklearn_{most}": round(
            seconds["cr-jax route", most] / seconds["scikit-learn n-grams", most], 2
        ),
        "agreement_with_exact": float(np.mean([ours[name] == exact[name] for name in exact])),
        "agreement_files": len(exact),
        "one_file_s": seconds["cr-jax route", one],
    }


def pieces(specs: Sequence[str], root: str, most: int) -> list[str]:
    """At most so many texts of about `SIZE` bytes; short documents are joined."""
    return [text for text, _ in zip(_pieces(specs, root), range(most), strict=False)]


def _pieces(specs: Sequence[str], root: str) -> Iterator[str]:
    held = b""
    for spec in specs:
        for document in documents(spec.replace("{root}", root)):
            held += document.text.encode("utf-8", "replace")
            if len(held) >= SIZE:
                yield held[:SIZE].decode("utf-8", "ignore")
                held = b""  # of a long document only its beginning
            else:
                held += b"\n\n"


def written(folder: Path, texts: dict[str, list[str]], count: int) -> Path:
    """`count` files, of the domains in turn, named DOMAIN.NUMBER."""
    folder.mkdir()
    names = sorted(texts)
    for i in range(count):
        own = texts[names[i % len(names)]]
        text = own[(i // len(names)) % len(own)]
        (folder / f"{names[i % len(names)]}.{i}").write_text(text, "utf-8")
    return folder


def timed(tool: str, command: Sequence[str], count: int) -> tuple[dict, dict[str, tuple]]:
    """(the row of a tool, file -> (expert or "", nearest)); the command writes CSV."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        peak, ended = 0, 0
        while not ended:
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.02)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
        out.seek(0)
        found = {
            Path(row["file"]).name: (row["expert"], row["nearest"]) for row in csv.DictReader(out)
        }
    if process.returncode or len(found) != count:
        raise UserError(f"{tool} gave {len(found)} of {count} answers: run {shlex.join(command)}")
    right = np.mean([nearest == name.rsplit(".", 1)[0] for name, (_, nearest) in found.items()])
    row = {
        "tool": tool,
        "files": count,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mb": peak >> 20,
        "files_per_s": round(count / seconds, 1),
        "accuracy": float(right),
    }
    return row, found


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had; what wait4 says includes its parent's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) << 10 if found else 0


def train_sklearn(texts: dict[str, list[str]], model: Path) -> None:
    """Stores the classifier's weights."""
    from sklearn.linear_model import SGDClassifier

    from benchmarks.routing.sklearn_files import vectorizer

    names = sorted(texts)
    x = vectorizer(FEATURES).transform([text for name in names for text in texts[name]])
    y = np.repeat(np.arange(len(names)), [len(texts[name]) for name in names])
    fitted = SGDClassifier(random_state=0).fit(x, y)
    coef, intercept = fitted.coef_.astype(np.float32), fitted.intercept_
    if len(names) == 2:  # one row, of the second class
        coef, intercept = np.concatenate([-coef, coef]), np.concatenate([-intercept, intercept])
    np.savez(model, names=np.array(names), coef=coef, intercept=intercept)


if __name__ == "__main__":
    raise SystemExit(main())
