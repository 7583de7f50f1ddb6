"""What the compiler made of a step: executed operations of the HLO text, and a trace's kernels.

Layout copies, transposes and scatters that no source line asks for show up here.
"""

import collections
import dataclasses
import pathlib
import re

import jax

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*->.*\{\s*$")
_NAME = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"^([\w\-]+)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
    "s64": 8,
    "u64": 8,
}
# Costless: names for buffers rather than work.
_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
}
_MOVES = ("copy", "transpose", "scatter", "gather", "concatenate", "dynamic-update-slice")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of HLO: its output bytes, opcode and the rest of the line."""

    name: str
    opcode: str
    bytes: int
    shape: str
    text: str

    def attribute(self, key: str) -> str | None:
        """The value of `key=...` on this line, without the leading %."""
        found = re.search(rf"\b{key}=\"?%?([\w.\-$/]+)", self.text)
        return found.group(1) if found else None


def parse(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """HLO text -> (entry computation's name, instructions by computation)."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        head = _COMPUTATION.match(line) if not line.startswith(" ") else None
        if head:
            current = computations.setdefault(head.group(2), [])
            entry = head.group(2) if head.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            named = _NAME.match(line)
            if named:
                shape, rest = _split_shape(named.group(2))
                opcode = _OPCODE.match(rest)
                if opcode:
                    current.append(
                        Instruction(named.group(1), opcode.group(1), _size(shape), shape, rest)
                    )
    return entry, computations


def _split_shape(text: str) -> tuple[str, str]:
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[: i + 1], text[i + 1 :].lstrip()
    return text, ""


def _size(shape: str) -> int:
    total = 0
    for kind, dims in _ARRAY.findall(shape):
        count = 1
        for d in filter(None, dims.split(",")):
            count *= int(d)
        total += count * _BYTES.get(kind, 0)
    return total


def executed(text: str) -> list[tuple[int, Instruction, list[Instruction]]]:
    """(times run per call, instruction, body of a fusion) for everything that does work.

    Loop bodies count as often as the compiler knows them to run, once where it does not know.
    """
    entry, computations = parse(text)
    found = []

    def walk(name: str, times: int) -> None:
        for i in computations.get(name, ()):
            if i.opcode == "while":
                trips = re.search(r"known_trip_count\W+n\W+(\d+)", i.text)
                walk(i.attribute("body"), times * (int(trips.group(1)) if trips else 1))
            elif i.opcode == "call":
                walk(i.attribute("to_apply"), times)
            elif i.opcode == "async-start":
                walk(i.attribute("calls"), times)
            elif i.opcode == "conditional":
                branches = i.text.partition("branch_computations")[2]
                for branch in re.findall(r"%([\w.\-]+)", branches):
                    if branch in computations:
                        walk(branch, times)
            elif i.opcode not in _FREE and not i.opcode.endswith(("-done", "-update")):
                body = computations.get(i.attribute("calls") or "", [])
                found.append((times, i, body if i.opcode == "fusion" else []))

    walk(entry, 1)
    return found


def label(instruction: Instruction, body: list[Instruction]) -> str:
    """The row of the table that an instruction is counted in."""
    if instruction.opcode == "custom-call":
        return f"custom-call {instruction.attribute('custom_call_target')}"
    if instruction.opcode == "fusion":
        moves = [m for m in _MOVES if any(i.opcode == m for i in body)]
        kind = re.search(r'"kind":"(__\w+)"', instruction.text)
        what = kind.group(1) if kind else instruction.attribute("kind")
        return f"fusion {what}" + (f" with {'+'.join(moves)}" if moves else "")
    return instruction.opcode


def summary(text: str, largest: int = 20) -> dict:
    """Counts by label, and the largest data movements with where in the model they come from.

    counts: {label: {"count", "gib_written"}} per step.  moves: copies, transposes, scatters and
    fusions around them, by GiB written per step.
    """
    counts = collections.defaultdict(lambda: {"count": 0, "gib_written": 0.0})
    moves = []
    for times, i, body in executed(text):
        name = label(i, body)
        counts[name]["count"] += times
        counts[name]["gib_written"] += times * i.bytes / 2**30
        if i.opcode in _MOVES or " with " in name:
            source = re.search(r'op_name="([^"]*)"', i.text)
            moves.append(
                {
                    "gib_written": times * i.bytes / 2**30,
                    "times": times,
                    "label": name,
                    "shape": i.shape[:80],
                    "name": i.name,
                    "source": source.group(1)[-110:] if source else "",
                }
            )
    moves.sort(key=lambda m: -m["gib_written"])
    ordered = sorted(counts.items(), key=lambda item: -item[1]["gib_written"])
    return {"counts": dict(ordered), "moves": moves[:largest]}


def print_summary(found: dict) -> None:
    """Prints `summary`'s result as two tables."""
    print(f"{'operations of the compiled step':64s} {'count':>6s} {'GiB written':>12s}")
    for name, row in found["counts"].items():
        print(f"{name[:64]:64s} {row['count']:6d} {row['gib_written']:12.3f}")
    print("\nlargest data movements (GiB written per step, times, label, shape, source)")
    for m in found["moves"]:
        print(
            f"{m['gib_written']:8.3f} {m['times']:4d}x {m['label'][:44]:44s} "
            f"{m['shape'][:44]:44s} {m['source']}"
        )


def trace_summary(folder: str, largest: int = 40) -> dict:
    """The newest profile under `folder`: kernels by total time, and how long the device idled.

    {"span_ms": first start to last end, "busy_ms": sum of kernels, "kernels": [{"kernel", "ms",
    "count"}]}.  Reads the device's planes, or the host's where a profile has no device (CPU; its
    events nest, so there busy_ms counts some time twice).  Empty without a profile.
    """
    files = sorted(pathlib.Path(folder).rglob("*.xplane.pb"), key=lambda f: f.stat().st_mtime)
    if not files:
        return {}
    planes = list(jax.profiler.ProfileData.from_file(str(files[-1])).planes)
    # Other planes and lines (modules, steps, scopes) repeat the time of the kernels below them.
    lines = [line for p in planes if p.name.startswith("/device:") for line in p.lines]
    lines = (
        [x for x in lines if x.name.startswith("Stream")]
        or [x for x in lines if x.name == "XLA Ops"]
        or [x for p in planes for x in p.lines if "XLA" in x.name]
    )
    spent, start, end = collections.defaultdict(lambda: [0.0, 0]), float("inf"), 0.0
    for event in (event for line in lines for event in line.events):
        spent[event.name][0] += event.duration_ns / 1e6
        spent[event.name][1] += 1
        start, end = min(start, event.start_ns), max(end, event.start_ns + event.duration_ns)
    ordered = sorted(spent.items(), key=lambda item: -item[1][0])
    return {
        "span_ms": max(0.0, end - start) / 1e6 if spent else 0.0,
        "busy_ms": sum(ms for ms, _ in spent.values()),
        "kernels": [
            {"kernel": name, "ms": ms, "count": count} for name, (ms, count) in ordered[:largest]
        ],
    }


def print_trace(found: dict) -> None:
    """Prints `trace_summary`'s result."""
    print(f"\nprofile: {found['busy_ms']:.1f} ms of kernels in {found['span_ms']:.1f} ms")
    for k in found["kernels"]:
        print(f"{k['ms']:10.3f} ms {k['count']:6d}x {k['kernel'][:110]}")
