"""What is code and what is prose in files whose answer is known."""

import json

import pytest
import zstandard

from benchmarks import parsed_files
from benchmarks.parsed_files import covering, html_page, main, markdown, notebook, python

CODE = '''"""Über das Modul."""
# first
# second

class A:
    """Of A,
    two lines."""

    text = """no docstring"""; b = "# none"  # ä last

    async def f(self):
        "ünicode: ü"; return f"{self} # {1}"
'''


def parts(found):
    text, code = found
    segments = covering(text, code)
    assert "".join(text[a:b] for a, b, _ in segments) == text
    return [(text[a:b].strip(), kind) for a, b, kind in segments]


def test_docstrings_and_comments_are_the_prose_of_python():
    assert parts(python(CODE)) == [
        ('"""Über das Modul."""\n# first\n# second', "prose"),
        ("class A:", "code"),
        ('"""Of A,\n    two lines."""', "prose"),
        ('text = """no docstring"""; b = "# none"', "code"),
        ("# ä last", "prose"),
        ("async def f(self):", "code"),
        ('"ünicode: ü"', "prose"),
        ('; return f"{self} # {1}"', "code"),
    ]
    with pytest.raises(SyntaxError):
        python("def f(:\n")


def test_fences_and_indented_lines_are_the_code_of_markdown():
    text = "Say `x`:\n\n```py\nx = 1\n\ny = 2\n```\n\n- a list\n\n      deep = 3\n\n~~~\n"
    text += "never closed\n"
    assert parts(markdown(text)) == [
        ("Say `x`:\n\n```py", "prose"),
        ("x = 1\n\ny = 2", "code"),
        ("```\n\n- a list", "prose"),
        ("deep = 3", "code"),
        ("~~~", "prose"),
        ("never closed", "code"),
    ]


def test_scripts_and_styles_are_the_code_of_a_page():
    text = (
        '<p>a < b</p>\n<script type="m">if (a<b) "<p>"\n</script> and\n<STYLE>p{}</STYLE><i>c</i>'
    )
    assert parts(html_page(text)) == [
        ("<p>a < b</p>", "prose"),
        ('<script type="m">if (a<b) "<p>"\n</script>', "code"),
        ("and", "prose"),
        ("<STYLE>p{}</STYLE>", "code"),
        ("<i>c</i>", "prose"),
    ]


def test_cells_of_a_notebook():
    cells = [("markdown", ["# T\n", "text"]), ("code", "x = 1"), ("code", ["y"]), ("raw", "z")]
    text = json.dumps({"cells": [{"cell_type": t, "source": s} for t, s in cells]})
    assert parts(notebook(text)) == [("# T\ntext", "prose"), ("x = 1\n\ny", "code"), ("z", "prose")]


def test_white_space_belongs_to_what_is_around_it():
    assert covering("  \nab  cd\n", [(3, 5), (7, 9)]) == [(0, 10, "code")]
    assert covering("ab cd", [(0, 2)]) == [(0, 2, "code"), (2, 5, "prose")]
    assert covering("abcd", []) == [(0, 4, "prose")]


def read(file):
    return [json.loads(x) for x in zstandard.decompress(file.read_bytes()).decode().splitlines()]


def test_packages_are_in_one_split_and_files_that_do_not_parse_in_none(tmp_path, capsys):
    root, out = tmp_path / "root", tmp_path / "out"
    for i in range(12):
        (root / f"p{i}").mkdir(parents=True)
        for j in range(5):
            (root / f"p{i}" / f"m{j}.py").write_text(CODE * 6 + f"x = {i}, {j}\n")
    (root / "p1" / "bad.py").write_text("def f(:\n" * 200)
    (root / "p1" / "all_code.py").write_text("x = 1\n" * 400)
    (root / "p1" / "latin.py").write_bytes(CODE.encode("latin-1") * 9)
    flags = ["--roots", str(root), "--out", str(out), "--kinds", "python", "--documents", "7"]
    assert main(flags) == 0
    found = {split: read(out / "python" / f"{split}.jsonl.zst") for split in ("valid", "test")}
    packages = {split: {d["file"].split("/")[0] for d in rows} for split, rows in found.items()}
    assert all(len(rows) == 7 for rows in found.values())
    assert not packages["valid"] & packages["test"]
    files = [d["file"] for rows in found.values() for d in rows]
    assert len(set(files)) == 14 and not any("/m" not in f for f in files)
    for document in found["test"]:
        assert document["segments"][-1][1] == len(document["text"]) <= parsed_files.LONGEST
    first = (out / "python" / "test.jsonl.zst").read_bytes()
    assert main(flags) == 0 and (out / "python" / "test.jsonl.zst").read_bytes() == first
    capsys.readouterr()

    assert main(["--roots", str(root), "--out", str(out), "--kinds", "html"]) == 0
    assert "html" in capsys.readouterr().err and not (out / "html").exists()
    assert main(["--roots", str(root / "none"), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "none" in err and err.count("\n") == 1
