"""Real files that mix code and prose, labelled by parsers -> FOLDER/KIND/{valid,test}.jsonl.zst.

    python -m benchmarks.parsed_files --out FOLDER [--kinds python markdown html notebook]
        [--roots FOLDER ...] [--documents 40]

Lines of {"text", "segments": [[start, end, "code" | "prose"], ...], "file"}, in characters; the
segments cover the text.  `python -m benchmarks.segments --parsed FOLDER` reads them.  What is prose
in a file, the rest being code:

    python     docstrings (`ast`) and comments (`tokenize`)
    markdown   all but fenced and indented code (markdown-it-py); also of a package's description
    html       all but <script> and <style> (`html.parser`); markup is prose
    notebook   cells that are no code, a blank line between cells

A root is a folder of packages, site-packages of this Python unless others are named.  A package is
in valid or in test, never in both, and gives at most `EACH` files, the first of an order that its
names decide.  Files are cut after `LONGEST` characters; a file needs `SHORTEST`, and 5 % of each.
"""

import argparse
import ast
import bisect
import hashlib
import html.parser
import io
import itertools
import json
import re
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from email import message_from_string
from pathlib import Path

import zstandard

from cr_jax.data.text_form import LF_NFC, formed
from cr_jax.errors import UserError, complain
from cr_jax.host.files import write_whole

SHORTEST, LONGEST = 1_000, 8_000  # characters of a document
EACH = 3  # files of a package
LEAST = 0.05  # share of a document that each of code and prose has
SPLITS = "valid", "test"
Range = tuple[int, int]
Segments = list[tuple[int, int, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the documents; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", required=True)
    p.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    p.add_argument("--roots", nargs="+", default=[sysconfig.get_paths()["purelib"]])
    p.add_argument("--documents", type=int, default=40, help="of each kind and split, at most")
    a = p.parse_args(arguments)
    try:
        for root in a.roots:
            if not Path(root).is_dir():
                raise UserError(f"{root} is no folder of packages")
        for kind in a.kinds:
            found = documents(kind, map(Path, a.roots), a.documents)
            if all(found.values()):
                _write(Path(a.out) / kind, found)
                print(f"{kind}: " + ", ".join(f"{len(found[s])} {s}" for s in SPLITS))
            else:
                complain("warning", f"no files of kind {kind} in both splits: it is left out")
    except UserError as error:
        complain("error", error)
        return 2
    return 0


def documents(kind: str, roots: Iterable[Path], most: int) -> dict[str, list[dict]]:
    """{split: documents}, at most `most` of each."""
    endings, read, parse = KINDS[kind]
    found: dict[str, list[dict]] = {split: [] for split in SPLITS}
    taken: dict[str, int] = {}
    for package, file in _files(roots, endings):
        split = SPLITS[_draw(package) % 2]
        if len(found[split]) == most or taken.get(package) == EACH:
            continue
        document = _document(file, read, parse)
        if document:
            taken[package] = taken.get(package, 0) + 1
            found[split].append({**document, "file": f"{package}/{file.name}"})
    return found


def _files(roots: Iterable[Path], endings: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """(package, file), in an order that names alone decide."""
    names = []
    for root in roots:
        for file in root.rglob("*"):
            if file.name.endswith(endings) and file.is_file():
                inside = file.relative_to(root)
                # numpy and numpy-2.0.dist-info are one package.
                package = re.sub(r"-.*|\.py$", "", inside.parts[0]).lower()
                if package == "cr_jax":  # its texts change with every commit
                    continue
                names.append((_draw(inside.as_posix()), package, file))
    return ((package, file) for _, package, file in sorted(names))


def _draw(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:8], "big")


def _document(file: Path, read: Callable, parse: Callable) -> dict | None:
    """None where the file is not what its name says, or is nearly all code or all prose."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange literals in others' code
            text, code = parse("".join(formed([read(file)], LF_NFC)))
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, OSError, KeyError):
        return None
    text = text if len(text) <= LONGEST else text[: text.rfind("\n", 0, LONGEST) + 1]
    segments = covering(text, code)
    share = sum(b - a for a, b, kind in segments if kind == "code") / max(1, len(text))
    if len(text) < SHORTEST or not LEAST <= share <= 1 - LEAST:
        return None
    return {"text": text, "segments": segments}


def covering(text: str, code: Iterable[Range]) -> Segments:
    """All of the text as code and prose in turn; white space between two of a kind is of it too."""
    edges, place = [], 0
    for start, end in sorted(code):
        start, end = max(start, place), min(end, len(text))
        if not text[start:end].strip():
            continue
        if edges and not text[place:start].strip():
            edges[-1] = end
        else:
            edges += [start, end]
        place = end
    cuts, kinds = [0, *edges, len(text)], itertools.cycle(("prose", "code"))
    # What lies between is prose if there is more than white space before the first and last.
    if edges and not text[: edges[0]].strip():
        cuts[1] = 0
    if edges and not text[edges[-1] :].strip():
        cuts[-2] = len(text)
    return [(a, b, kind) for (a, b), kind in zip(itertools.pairwise(cuts), kinds) if a < b]


def _outside(ranges: Iterable[Range], length: int) -> list[Range]:
    """What ranges leave of 0..length."""
    found, place = [], 0
    for start, end in sorted(ranges):
        if start > place:
            found.append((place, start))
        place = max(place, end)
    return [*found, (place, length)]


class _Places:
    """Line (from 1) and column of a text -> character."""

    def __init__(self, text: str):
        self.lines = text.split("\n")
        self.starts = [0, *itertools.accumulate(len(line) + 1 for line in self.lines)]

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def at_byte(self, line: int, column: int) -> int:
        """Of a column in UTF-8 bytes, as `ast` counts."""
        widths = itertools.accumulate(len(c.encode()) for c in self.lines[line - 1])
        return self.at(line, bisect.bisect_left(list(widths), column + 1))


def python(text: str) -> tuple[str, list[Range]]:
    """The text and its code: all but docstrings and comments."""
    # Python ends lines where other tools do not.
    if re.search("[\x0c\x00]", text):
        raise ValueError("form feed or NUL")
    places, prose = _Places(text), []
    for node in ast.walk(ast.parse(text)):
        kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            string = node.body[0]
            start = places.at_byte(string.lineno, string.col_offset)
            prose.append((start, places.at_byte(string.end_lineno, string.end_col_offset)))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            prose.append((places.at(*token.start), places.at(*token.end)))
    # White space between two comments is theirs: it is no code.
    return text, [r for r in _outside(prose, len(text)) if text[slice(*r)].strip()]


def markdown(text: str) -> tuple[str, list[Range]]:
    """The text and its code: lines of fenced code without the fences, and of indented code."""
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        raise UserError(
            "Markdown is read by markdown-it-py: pip install markdown-it-py, or name other --kinds"
        ) from None
    starts, code = _Places(text).starts, []
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block"):
            first = token.map[0] + (token.type == "fence")
            code.append((starts[first], starts[first + token.content.count("\n")]))
    return text, code


class _Scripts(html.parser.HTMLParser):
    """Where <script> and <style> lie, their tags with them."""

    def __init__(self, text: str):
        super().__init__()
        self.places, self.code, self.begin = _Places(text), [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style"):
            self.begin = self.places.at(*self.getpos())

    def handle_endtag(self, tag):
        if tag in ("script", "style") and self.begin is not None:
            self.code.append((self.begin, self.places.at(*self.getpos()) + len(f"</{tag}>")))
            self.begin = None


def html_page(text: str) -> tuple[str, list[Range]]:
    """The text and its code: <script> and <style>."""
    return text, _Scripts(text).code


def notebook(text: str) -> tuple[str, list[Range]]:
    """The cells of a notebook (its JSON) with a blank line between them, and the code cells."""
    joined, code = "", []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"]).strip("\n") + "\n\n"
        if cell["cell_type"] == "code":
            code.append((len(joined), len(joined) + len(source)))
        joined += source
    return joined, code


def _plain(file: Path) -> str:
    return file.read_text("utf-8")


def _markdown(file: Path) -> str:
    """A Markdown file, or the description in a package's METADATA."""
    text = file.read_text("utf-8")
    if file.name != "METADATA":
        return text
    message = message_from_string(text)
    if "text/markdown" not in message.get("Description-Content-Type", ""):
        raise ValueError("not Markdown")
    return message.get_payload()


KINDS: dict[str, tuple[tuple[str, ...], Callable, Callable]] = {
    "python": ((".py",), _plain, python),
    "markdown": ((".md", "METADATA"), _markdown, markdown),
    "html": ((".html", ".htm"), _plain, html_page),
    "notebook": ((".ipynb",), _plain, notebook),
}


def _write(folder: Path, found: dict[str, list[dict]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in found.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            write_whole(folder / f"{split}.jsonl.zst", zstandard.compress(lines))
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
