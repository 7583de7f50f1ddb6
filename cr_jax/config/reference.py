"""Every setting with its default and meaning, read from the source of `config.schema`.

For `main.py --help` and, by `python -m cr_jax.config.reference > docs/config.md`, for people;
`--check docs/config.md` says whether that file is as the schema has it.
"""

import ast
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cr_jax.config import schema

TITLES = {
    "": "Run",
    "model": "Model",
    "tokenizer": "Tokenizer",
    "data": "Data",
    "optimizer": "Optimizer",
    "train": "Training",
    "eval": "Evaluation",
    "scoring": "Scoring",
    "lm": "Language models",
    "lm_large": "A larger language model to compare with",
    "lm_optimizer": "Optimizer of the language models",
    "modular": "A language model for every expert",
    "continual": "What a growing bank is compared with",
}


class Setting(NamedTuple):
    name: str  # after "config."
    kind: str
    default: str
    meaning: str


def settings() -> dict[str, list[Setting]]:
    """Group -> its settings in the schema's order; group "" is the run's own."""
    path = Path(schema.__file__)
    lines = path.read_text(encoding="utf-8").splitlines()
    classes = {
        node.name: node
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.ClassDef)
    }
    groups: dict[str, str] = {}
    grouped: dict[str, list[Setting]] = {"": []}
    for name, kind, default, meaning in _fields(classes["Experiment"], lines):
        if kind in classes:
            groups[name] = kind
        else:
            grouped[""].append(Setting(name, kind, default, meaning))
    for group, kind in groups.items():
        described = _described(ast.get_docstring(classes[kind]) or "")
        grouped[group] = [
            Setting(f"{group}.{n}", k, d, m or described.get(n, ""))
            for n, k, d, m in _fields(classes[kind], lines)
        ]
    return grouped


def _fields(node: ast.ClassDef, lines: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, default, comment): of its own line, or of the lines above it."""
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        _, mark, comment = lines[field.end_lineno - 1][field.end_col_offset :].partition("#")
        if not mark:
            above = field.lineno - 2
            while lines[above].strip().startswith("#"):
                comment = f"{lines[above].strip()[1:].strip()} {comment}"
                above -= 1
        default = ast.unparse(field.value) if field.value else ""
        if "default_factory=dict" in default:
            default = "{}"
        kind = ast.unparse(field.annotation)
        meaning = " ".join(comment.split())
        if kind.startswith("Literal["):
            choices = ", ".join(str(x) for x in ast.literal_eval(kind[len("Literal") :]))
            meaning = f"{choices}; {meaning}" if meaning else choices
        yield field.target.id, kind, default.replace("'", '"'), meaning


def _described(text: str) -> dict[str, str]:
    """Paragraphs of a docstring that begin with "name: "."""
    meanings: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        name, colon, rest = line.partition(": ")
        if colon and name.isidentifier():
            last, meanings[name] = name, rest
        elif last and line.strip():
            meanings[last] += " " + line.strip()
        else:
            last = ""
    return meanings


def as_text(own: Mapping[str, Any] | None = None) -> str:
    """For a terminal of 100 columns.

    own: the values of a file, as groups of fields; where one is not the default, it is shown, and
    the default in brackets.
    """
    parts = []
    for group, fields in settings().items():
        parts.append(f"\n{TITLES.get(group, group)}")
        for s in fields:
            head = f"  --config.{s.name}={_shown(s, own)}"
            if len(head) < 46 and len(s.meaning) < 52:
                parts.append(f"{head:<46} {s.meaning}".rstrip())
            else:
                parts += [
                    head,
                    *textwrap.wrap(
                        s.meaning, 92, initial_indent=" " * 6, subsequent_indent=" " * 6
                    ),
                ]
    return "\n".join(parts).lstrip("\n") + "\n"


def _shown(setting: Setting, own: Mapping[str, Any] | None) -> str:
    """The value of the file, with the default where that is another."""
    at: Any = own
    for part in setting.name.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return setting.default
        at = at[part]
    if isinstance(at, Mapping) and at:
        return f"{{{', '.join(map(str, at))}}} ({setting.default})"
    if isinstance(at, Mapping | tuple | list) and not at:
        return setting.default
    value = json.dumps(at) if isinstance(at, str) else repr(at).replace("'", '"')
    try:
        same = ast.literal_eval(setting.default) == at
    except (SyntaxError, ValueError):  # a whole group, or a product such as 2 * 1024
        same = False
    return setting.default if same else f"{value} ({setting.default})"


def as_markdown() -> str:
    """The page docs/config.md."""
    parts = [
        "# Settings",
        "",
        "Every field of a file in `configs/`; on the command line `--config.NAME=VALUE`. "
        "Made from `cr_jax/config/schema.py` by `python -m cr_jax.config.reference`.",
    ]
    for group, fields in settings().items():
        parts += [
            "",
            f"## {TITLES.get(group, group)}",
            "",
            "| name | default | meaning |",
            "|---|---|---|",
        ]
        for s in fields:
            cells = (f"`{s.name}`", f"`{s.default}`", s.meaning)
            parts.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Prints the page, or with `--check FILE` compares; the exit status."""
    if arguments[:1] != ["--check"]:
        print(as_markdown(), end="")
        return 0
    if Path(arguments[1]).read_text(encoding="utf-8") == as_markdown():
        return 0
    print(
        f"{arguments[1]} is not as cr_jax/config/schema.py has it: "
        f"python -m cr_jax.config.reference > {arguments[1]}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
