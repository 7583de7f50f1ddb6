"""Which files stand behind a source.  Not in the paper."""

import sysconfig
from pathlib import Path

from cr_jax.data import specs
from cr_jax.data.finding import LeftOut, files_of, walk
from cr_jax.data.hub import saved_files
from cr_jax.data.specs import Source
from cr_jax.errors import UserError

SAMPLES = Path(__file__).parent / "samples"

# Not program text: test data, character tables, and the help texts of `help()`.
_STDLIB_SKIP = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "encodings",
    "pydoc_data",
    "ensurepip",
    "turtledemo",
    "__pycache__",
    "__phello__",
}


def source_files(source: Source, left_out: LeftOut) -> list[tuple[Path, str]]:
    """Sorted (path, name) pairs; a name does not depend on where the project or the folder lies.

    Empty for a registered source.  `UserError` where there are none.
    """
    if source.kind in specs.REGISTERED:
        return []
    if source.kind == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        skip = lambda name: name in _STDLIB_SKIP or name.startswith("config-")
        found = [
            (Path(entry.path), Path(entry.path).relative_to(root).as_posix())
            for _, entries in walk(str(root), skip, follow=False)
            for entry in entries
            if entry.name.endswith(".py")
        ]
        if not found:
            raise UserError(f"data source stdlib: no *.py files in {root}; use files:GLOB")
        return sorted(found, key=lambda pair: pair[1])
    if source.kind == "samples":
        path = SAMPLES / f"{source.target}.jsonl.xz"
        known = sorted(p.name.removesuffix(".jsonl.xz") for p in SAMPLES.glob("*.jsonl.xz"))
        if source.target not in known:
            raise UserError(f"data source {source.spec!r}: the samples are {', '.join(known)}")
        return [(path, path.name)]
    if source.kind == "hf":
        return saved_files(source.target) or []
    found = files_of(source.target, left_out, folders=source.kind == "files")
    if not found:
        raise UserError(
            f"data source {source.spec!r} matches no file; check the path"
            + (f" ({left_out.line})" if left_out.line else "")
        )
    return found
