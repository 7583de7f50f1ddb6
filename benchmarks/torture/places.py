"""Paths that shells, patterns, specs and file systems read in their own ways."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax.numpy as jnp
from hypothesis import strategies as st

from benchmarks.torture import watch
from benchmarks.torture.probes import Probe, differences
from cr_jax import cli
from cr_jax.data import documents, read_text
from cr_jax.training.checkpoint import Checkpointer

# Paths

_characters = st.characters(exclude_categories=("Cs",), exclude_characters="\0/")
_parts = st.one_of(
    st.sampled_from(
        [
            *(
                "run[1]",
                "a*b",
                "a?",
                "~",
                "~x",
                "a#b",
                "a@test",
                "C#",
                "a=b",
                "-x",
                "--bank",
                " a ",
            ),
            *("a\nb", "a\tb", "\x1b[2J", "é", "e\u0301", "中", "😀", "\u202ea", "%s", "{root}"),
            *("a,b", "a;b", "'", '"', "$HOME", "`x`", "\\", "a\\b", "con", "x" * 200, "0.3*a"),
            *("a&group=b", "jsonl:a", "files:a", "a:b", "**", "[", "]", "[!a]", "a.", "...", "a@"),
        ]
    ),
    st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="\0/"), min_size=1, max_size=12
    ),
    st.binary(min_size=1, max_size=10).map(lambda raw: os.fsdecode(raw.translate(_NO_SLASH))),
)
_NO_SLASH = bytes.maketrans(b"\0/", b"ab")
paths = st.lists(_parts.filter(lambda p: p not in (".", "..")), min_size=1, max_size=3).filter(
    lambda parts: all(len(os.fsencode(part)) <= 240 for part in parts)
)


def placed(bank: Path, writable: tuple[Path, ...]) -> st.SearchStrategy[Probe]:
    """Text, JSON lines, banks, pages and checkpoints at odd paths: all are read and written."""
    kinds = calls(bank, writable)

    def made(parts, name):
        what = f"{name} at {'/'.join(parts)!a}"
        call = lambda folder: kinds[name](folder, folder.joinpath(*parts))
        # A workdir's name must be UTF-8 (docs/checks.md): what writes checkpoints knows no other.
        bytes_alone = name == "a checkpoint" and not _is_text(parts)
        return Probe("path", what, call, refused=None if bytes_alone else False)

    return st.builds(made, paths, st.sampled_from(sorted(kinds)))


def calls(bank: Path, writable: tuple[Path, ...]) -> dict[str, Callable]:
    """What can lie at a path -> call(empty folder, path): what was wrong.

    bank: a good one, which is copied; writable: where else a command may write.
    """

    def bank_at(folder, path):
        shutil.copytree(bank, path)
        (folder / "text").write_text("a few words")
        argv = ["route", "--json", "--bank", str(path), str(folder / "text")]
        return _called(argv, folder, writable)

    def routed_at(folder, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a few words")
        return _called(["route", "--bank", str(bank), str(path)], folder, writable)

    def page_at(folder, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        (folder / "text").write_text("a few words")
        argv = ["route", "--bank", str(bank), "--html", f"{path}.html", str(folder / "text")]
        wrong = _called(argv, folder, writable)
        return wrong + ([] if os.path.getsize(f"{path}.html") else ["an empty page"])

    return {
        "a text file": _text_at,
        "a folder of texts": _folder_at,
        "JSON lines": _jsonl_at,
        "a bank": bank_at,
        "a text to route": routed_at,
        "a page": page_at,
        "a checkpoint": _checkpoint_at,
    }


def _is_text(parts: list[str]) -> bool:
    return all(part.isprintable() and "\ufffd" not in part for part in parts) and not any(
        0xDC80 <= ord(c) <= 0xDCFF for part in parts for c in part
    )


def _called(argv: list[str], folder: Path, writable: tuple[Path, ...]) -> list[str]:
    status, wrong = watch.call(cli.main, argv, b"", (folder, *writable), False)
    return wrong if status == 0 else wrong or [f"status {status} of {argv[0]}"]


def _checkpoint_at(folder: Path, path: Path) -> list[str]:
    state = {"w": jnp.arange(6.0)}
    # Names that the library beneath cannot hold get a link elsewhere.
    with mock.patch.object(tempfile, "tempdir", str(folder.parent)):
        writer = Checkpointer(path)
        writer.save(1, state, {"next_index": 1}, {"elapsed": 1})
        writer.wait()
        writer.close()
        reader = Checkpointer(path)
        restored = reader.restore(state)
        reader.close()
    if restored is None or (restored[1]["w"] != state["w"]).any():
        return ["a sealed step was not restored"]
    return []


def _text_at(folder: Path, path: Path) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a few words\n")
    wrong = differences(["".join(read_text(path))], ["a few words\n"])
    return wrong + differences([d.text for d in documents(f"files:{path}")], ["a few words\n"])


def _folder_at(folder: Path, path: Path) -> list[str]:
    path.mkdir(parents=True)
    (path / "one.txt").write_text("one")
    (path / "a[1]").mkdir()
    (path / "a[1]" / "two.txt").write_text("two")
    wrong = differences([d.text for d in documents(f"files:{path}")], ["two", "one"])
    pattern = [d.text for d in documents(f"files:{path}/*/*.txt")]
    return wrong + differences(pattern, ["two"])


def _jsonl_at(folder: Path, path: Path) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'{"body": "x"}\n{"body": "y"}\n')
    return differences([d.text for d in documents(f"jsonl:{path}#body")], ["x", "y"])
