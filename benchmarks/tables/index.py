"""The index of results/README.md, from the heads of the notes and from the JSON itself."""

import re

from benchmarks.tables.registry import RESULTS, ROOT, markdown, read, table

NOTES = ROOT / "docs/results"
FIELDS = ("Claim", "Verdict", "Command", "Commit", "Hardware", "JSON")
LINK = re.compile(r"\]\(\.\./\.\./results/(?P<path>[^)#]+)\)")


def head(text: str) -> dict[str, str]:
    """The fields at the top of a note, one bullet each.  KeyError when one is missing."""
    bullets = re.split(r"^- ", text.split("\n## ")[0], flags=re.MULTILINE)[1:]
    found = {}
    for bullet in bullets:
        name, _, said = " ".join(bullet.split("\n\n")[0].split()).partition(": ")
        found[name.strip("*")] = said
    return {name: found[name] for name in FIELDS}


def notes() -> dict[str, str]:
    """{file name: text} of the dated notes."""
    return {p.name: p.read_text() for p in sorted(NOTES.glob("*.md"))}


@table("index")
def index() -> str:
    """One row for each note, newest first; commands, commits and hardware head the notes."""
    rows = []
    for name, text in reversed(notes().items()):
        said = {k: v.replace("|", "/") for k, v in head(text).items()}
        title = text.splitlines()[0].lstrip("# ")
        files = said["JSON"].replace("../../results/", "")
        rows.append([f"[{title}](../docs/results/{name})", said["Claim"], said["Verdict"], files])
    return markdown(["note", "claim", "verdict", "JSON"], rows)


def origin(data: object) -> tuple[str, str]:
    """(commits, devices) that a JSON names: its own, or those of its runs and rows."""
    own = data if isinstance(data, dict) else {}
    parts = [own, own.get("provenance"), own.get("record")]
    for key in ("runs", "rows"):
        part = own.get(key)
        parts += (
            part if isinstance(part, list) else [*part.values()] if isinstance(part, dict) else []
        )
    first = lambda part, keys: next((str(part[k]) for k in keys if part.get(k)), "")
    said = [
        (first(p, ("run_commit", "commit")), first(p, ("device", "hardware", "kind")))
        for p in parts
        if isinstance(p, dict)
    ]
    short = lambda text: text[:7] if re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", text) else text
    return tuple(
        "; ".join(dict.fromkeys(filter(None, column)))  # type: ignore[return-value]
        for column in ([short(c) for c, _ in said], [d for _, d in said])
    )


@table("files")
def files() -> str:
    """Every JSON file: who made it, on what, and which notes read it."""
    said = {n: [m["path"] for m in LINK.finditer(text)] for n, text in notes().items()}
    rows = []
    for path in sorted(RESULTS.rglob("*.json")):
        name = str(path.relative_to(RESULTS))
        of = [
            f"[{n[11:-3]}](../docs/results/{n})"
            for n, paths in said.items()
            if any(name == p or (p.endswith("/") and name.startswith(p)) for p in paths)
        ]
        rows.append([f"[{name}]({name})", *origin(read(name)), ", ".join(of)])
    return markdown(["file", "commit", "hardware", "notes"], rows)


@table("arrays")
def arrays() -> str:
    """The arrays that are kept, and the file that is made of them."""
    of = {
        "bank/bank_s0.npz": "cascade_20.json; routing.json at 512 tokens",
        "bank/half_s0.npz": "routing_half.json, routing_half_without.json, cascade_20_half.json",
        "bank/half_weight1_s0.npz": "routing_half_weight1.json, "
        "routing_half_weight1_without.json, cascade_20_half_weight1.json",
        "bank/experts64.npz": "routing_64.json, cascade_64.json",
        "code_length/": "scoring_code.json",
        "scoring/": "scoring.json",
        "sizes/": "sizes/table.json",
    }
    size = lambda name: sum(
        p.stat().st_size for p in RESULTS.glob(f"{name}*.npz" if name.endswith("/") else name)
    )
    return markdown(
        ["arrays", "MB", "made of them"],
        [[name, f"{size(name) / 1e6:.1f}", made] for name, made in of.items()],
    )
