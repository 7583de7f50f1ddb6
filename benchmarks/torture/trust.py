"""What a bank from a stranger, a failing disk and a neighbour can do -> results/trust.json.

    python -m benchmarks.torture.trust --out results/trust.json [--stride 7] [--lowest]

--lowest: also `make test-lowest`, which installs the lowest versions of all packages.
"""

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import zstandard

from benchmarks.results import commit, versions, write
from benchmarks.torture import failures, races, runs
from cr_jax.errors import STEERING

PLACES = (
    *("bank.json", "experts", "experts/e0", "tokenizer", "tokenizer/tokenizer.json", "seed_lm"),
    *("seed_lm/lm.safetensors", "seed_lm/manifest.json"),
    *(f"experts/e0/{x}.safetensors" for x in ("params", "bigram", "lm")),
    *(f"experts/e0/{x}.json" for x in ("config", "calibration", "manifest")),
)
PAYLOADS = (
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b[31mred",
        "\r\x1b[K",
        "\x9b2J",
        "\x07",
        "\x08\x08",
        "\x7f",
    ),
    *("\u202eabc", "\u2066x\u2069", "\u200f", "\u061c", "\u2028", "\x85"),
)
# What is done with a bank a part of which is a link; SOURCE: an expert's folder.
COMMANDS = (
    ("verify",),
    ("list",),
    ("remove", "e0"),
    ("add", "SOURCE", "--name", "new"),
    ("route",),
)
BOMB = 4 << 30  # bytes that 130 KB unfold to
LINE = 200 << 20  # bytes of one line


def main(arguments: list[str] | None = None) -> int:
    """-> 0 when every promise was kept, 1 otherwise."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", required=True, metavar="FILE")
    p.add_argument("--loads", type=int, default=600, help="of a bank beside its writers")
    p.add_argument("--stride", type=int, default=1, help="each so many-th file operation fails")
    p.add_argument("--lowest", action="store_true")
    a = p.parse_args(arguments)
    found = {
        "links": links(),
        "races": races.run(a.loads),
        "no_flock": no_flock(20),
        "write_failures": failures.run(a.stride),
        "terminal": terminal(),
        "bombs": bombs(),
        "lowest_versions": lowest() if a.lowest else "not run",
        "command": shlex.join(
            ["python", "-m", "benchmarks.torture.trust", *(arguments or sys.argv[1:])]
        ),
        "commit": commit(),
        "versions": versions(),
        "hardware": f"{os.cpu_count()} cores",
    }
    write(a.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0 if good(found) else 1


def good(found: dict) -> bool:
    """Whether every promise was kept; what was not measured is none."""
    written = found["write_failures"]
    return (
        found["links"]["escaped"] == 0
        and found["races"]["false_messages"] == found["races"]["lost_experts"] == 0
        and found["no_flock"]["lost"] == 0
        and (written is None or written["operations"] == written["recovered"])
        and found["terminal"]["raw"] == 0
        and found["bombs"]["refused"] == found["bombs"]["tried"]
        and found["lowest_versions"] in ("pass", "not run")
    )


def _said(argv: list[str]) -> tuple[int, str]:
    """`cr-jax ARGV` in this process: its status and all that it said."""
    from cr_jax.cli import main as program

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = program(argv)
        out.flush()
    return status, out.buffer.getvalue().decode("utf-8", "surrogateescape")


def _contents(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def links() -> dict:
    """Every part of a bank lies outside of it, behind a link: {"tried", "escaped"}.

    Escaped: a command changed what lies outside, or `bank verify` called the bank whole.
    """
    from benchmarks.torture.fuzz import make_bank

    tried = escaped = 0
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        folder = Path(place).resolve()
        make_bank(folder / "pristine", 2)
        source = str(folder / "pristine" / "experts" / "e1")
        (folder / "text").write_text("abcdefgh" * 20)
        for part in PLACES:
            for words in COMMANDS:
                bank, outside = folder / "bank", folder / "outside" / Path(part).name
                shutil.copytree(folder / "pristine", bank)
                outside.parent.mkdir()
                os.rename(bank / part, outside)
                (bank / part).symlink_to(outside)
                before = _contents(outside.parent)
                command, *rest = (source if word == "SOURCE" else word for word in words)
                group = [] if command == "route" else ["bank"]
                argv = [*group, command, "--bank", str(bank), *rest]
                status, _ = _said(argv + [str(folder / "text")] * (command == "route"))
                tried += 1
                escaped += _contents(outside.parent) != before or (
                    command == "verify" and status == 0
                )
                shutil.rmtree(bank)
                shutil.rmtree(outside.parent)
    return {"tried": tried, "escaped": escaped}


def terminal() -> dict:
    """Names and texts that would steer a terminal: {"payloads", "raw"}, raw: that reached it."""
    from benchmarks.torture.fuzz import make_bank
    from cr_jax.host.files import write_sealed

    raw = 0
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        folder = Path(place).resolve()
        make_bank(folder / "pristine", 1)
        index = json.loads((folder / "pristine" / "bank.json").read_text())
        index.pop("sha256")
        for payload in PAYLOADS:
            bank, text = folder / "bank", folder / f"a{payload}.txt".replace("/", "")
            shutil.copytree(folder / "pristine", bank)
            text.write_text(f"line {payload}\n" * 8)
            calls = [["route", "--bank", str(bank), str(text)]]
            calls += [["route", "--bank", str(bank), "--explain", str(text)]]
            calls += [["route", "--bank", str(bank), f"none{payload}"]]
            calls += [["bank", action, "--bank", str(bank)] for action in ("list", "verify")]
            said = [_said(argv)[1] for argv in calls]
            for change in (
                {"experts": {payload: index["experts"]["e0"]}},
                {payload: 1},
                {"scoring": {payload: 1}},
                {"text_form": payload},
            ):
                write_sealed(bank / "bank.json", {**index, **change})
                said += [_said(argv)[1] for argv in calls]
            raw += sum(bool(STEERING.search(x)) for x in said)
            shutil.rmtree(bank)
    return {"payloads": len(PAYLOADS), "raw": raw}


def no_flock(rounds: int) -> dict:
    """Two processes add to one bank on a disk without locks: {"additions", "lost"}."""
    from benchmarks.torture.fuzz import make_bank
    from cr_jax.bank.files import BankFolder

    context, lost, additions = multiprocessing.get_context("spawn"), 0, 0
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        bank = Path(place) / "bank"
        make_bank(bank, 1)
        shutil.copytree(bank, Path(place) / "pristine")
        with context.Pool(2, _without_flock) as pool:
            for number in range(rounds):
                names = [f"r{number}x{i}" for i in range(2)]
                calls = [
                    (str(bank), str(Path(place) / "pristine" / "experts" / "e0"), n) for n in names
                ]
                added = [n for n, done in zip(names, pool.starmap(_add, calls)) if done]
                additions += len(added)
                lost += len(set(added) - set(BankFolder(bank).names))
    return {"additions": additions, "lost": lost}


def _without_flock() -> None:
    import errno
    import fcntl

    def none(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    fcntl.flock = none


def _add(bank: str, source: str, name: str) -> bool:
    """Whether it was said to be added."""
    from cr_jax.bank import import_expert
    from cr_jax.errors import UserError

    try:
        return import_expert(bank, source, name, lambda line: None) == name
    except UserError:
        return False


def bombs() -> dict:
    """Files that unfold to gigabytes or are one long line: {"tried", "refused", "peak_mb"}."""
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        folder = Path(place)
        packer, block = zstandard.ZstdCompressor(), b"a" * (1 << 20)
        with (folder / "bomb.jsonl.zst").open("wb") as file, packer.stream_writer(file) as out:
            out.write(b'{"text": "')
            for _ in range(BOMB >> 20):
                out.write(block)
        with (folder / "line.jsonl").open("wb") as file:
            file.write(b'{"text": "' + block)
            for _ in range(LINE >> 20):
                file.write(block)
        codes = [
            f"jsonl:{folder / 'bomb.jsonl.zst'}",
            f"files:{folder / 'bomb.jsonl.zst'}",
            f"jsonl:{folder / 'line.jsonl'}",
            f"files:{folder / 'line.jsonl'}",
        ]
        done = [_child(spec, folder / "cache") for spec in codes]
    return {
        "tried": len(done),
        "refused": sum(refused for refused, _ in done),
        "peak_mb": max(peak for _, peak in done),
    }


def _child(spec: str, cache: Path) -> tuple[bool, int]:
    """(Whether the text was refused in one line, MB at most of a process that makes tokens of it
    and of those that it starts)."""
    code = (
        "import resource, sys\n"
        "from cr_jax.data import ByteTokenizer, load_corpus\n"
        "from cr_jax.errors import UserError\n"
        "try: load_corpus([sys.argv[1]], ByteTokenizer(), sys.argv[2])\n"
        "except UserError as error: print('refused', str(error).count(chr(10)))\n"
        "who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)\n"
        "print(max(resource.getrusage(x).ru_maxrss for x in who) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, spec, str(cache)],
        cwd=runs.ROOT,
        env=runs.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    *said, peak = done.stdout.split("\n")[:-1]
    return said == ["refused 0"], int(peak)


def lowest() -> str:
    """ "pass" or "fail": `make test-lowest`."""
    done = subprocess.run(["make", "test-lowest"], cwd=runs.ROOT, check=False)
    return "pass" if done.returncode == 0 else "fail"


if __name__ == "__main__":
    sys.exit(main())
