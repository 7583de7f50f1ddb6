"""A thousand narrow domains: directories, packages, books, articles, parts of a statute.

    narrow(DATA, 1000) -> {"code_python/scipy": [text, ...], ...}

Only wide domains whose records say what they are of; numbered parts of one source would be many
names for one domain.
"""

from collections.abc import Iterator
from pathlib import Path

from cr_jax.data.records import json_lines
from cr_jax.errors import UserError

# Wide domain -> the key of its records that names a narrow one.
KEYS = {
    "code_c": "group",  # a directory of the kernel
    "code_go": "group",  # a package
    "code_java": "group",  # a package of a module
    "code_js": "group",  # a package
    "code_python": "repo",  # a repository
    "code_rust": "group",  # a crate
    "lang_de": "group",  # an author
    "lang_ru": "group",  # an author
    "legal": "group",  # a part of a title
    "literature": "group",  # an author or a book
    "logs": "group",  # a program
    "scientific": "group",  # a chapter
    "tech_docs": "group",  # a page
    "wiki": "group",  # an article
}
LEAST = 16_000  # characters of a narrow domain
MOST = 32_000  # that are read of one
READ = 40_000_000  # characters of a wide domain, at most


def narrow(data: Path, count: int) -> dict[str, list[str]]:
    """`count` narrow domains with their texts, as many as can be of each wide one, those with most
    text first.

    `UserError` where DATA has not so many of `LEAST` characters.
    """
    wide = {name: _groups(data / name, key) for name, key in KEYS.items()}
    ranked = {
        name: sorted(
            (g for g in groups if _size(groups[g]) >= LEAST), key=lambda g: (-_size(groups[g]), g)
        )
        for name, groups in wide.items()
    }
    have = sum(map(len, ranked.values()))
    if have < count:
        raise UserError(
            f"--data: {data} has {have} narrow domains of {LEAST:,} characters; ask for at most "
            "so many"
        )
    chosen, place = [], 0
    while len(chosen) < count:  # in turn, so that a wide domain that has few gives all of them
        chosen += [(n, of[place]) for n, of in ranked.items() if place < len(of)]
        place += 1
    return {f"{n}/{g}": wide[n][g] for n, g in sorted(chosen[:count])}


def _largest(groups: dict[str, list[str]]) -> list[str]:
    """Those with enough text, the largest first."""
    enough = [g for g in groups if _size(groups[g]) >= LEAST]
    return sorted(enough, key=lambda g: (-_size(groups[g]), g))


def _size(texts: list[str]) -> int:
    return sum(map(len, texts))


def _groups(folder: Path, key: str) -> dict[str, list[str]]:
    """The texts of each group, `MOST` characters at most."""
    found: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for text, group in _records(folder, key):
        left = MOST - sizes.get(group, 0)
        if left > 0:
            found.setdefault(group, []).append(text[:left])
            sizes[group] = sizes.get(group, 0) + min(left, len(text))
    return found


def _records(folder: Path, key: str) -> Iterator[tuple[str, str]]:
    files = sorted(folder.glob("train*.jsonl*"))
    if not files:
        raise UserError(f"--data: no train*.jsonl in {folder}")
    read = 0
    for path in files:
        for _, record in json_lines(path):
            if group := str(record.get(key) or ""):
                yield record["text"], group
            read += len(record["text"])
            if read > READ:
                return
