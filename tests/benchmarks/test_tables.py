"""Tables between markers, filled from results/*.json."""

import json
import re

import pytest

from benchmarks.tables import __main__ as program
from benchmarks.tables import index, registry
from benchmarks.tables.fill import fill, filled, names_in
from benchmarks.tables.registry import ROOT, TABLES, markdown, percent
from cr_jax.errors import UserError

NOTES = sorted((ROOT / "docs/results").glob("*.md"))


def made():
    """A stand-in for a table."""
    return "| a |\n|---|\n| 1 |"


def text(inner="", name="one", end="<!-- /table -->"):
    return f"before\n\n<!-- table: {name} -->\n{inner}{end}\n\nafter\n"


def test_every_table_of_the_texts_is_what_the_results_say(capsys):
    assert program.main(["--check"]) == 0, capsys.readouterr().out


def test_a_changed_digit_is_stale_and_is_filled_again(tmp_path):
    path = tmp_path / "note.md"
    path.write_text(text())
    assert fill([path], {"one": made}, tmp_path, write=True) != []
    good = path.read_text()
    assert made() in good and good.startswith("before\n\n") and good.endswith("\n\nafter\n")
    assert fill([path], {"one": made}, tmp_path, write=False) == []
    path.write_text(good.replace("| 1 |", "| 2 |"))
    lines = fill([path], {"one": made}, tmp_path, write=False)
    assert lines == ["note.md: the table one is not what results/ says"]
    assert "| 2 |" in path.read_text()  # checking changes nothing
    fill([path], {"one": made}, tmp_path, write=True)
    assert path.read_text() == good


def test_text_around_tables_is_never_touched():
    twice = text("old\n") + text("| a |\n|---|\n| 1 |\n") + "end"
    new, stale = filled(twice, {"one": made}, "x.md")
    assert stale == ["one"] and names_in(new) == ["one", "one"]
    outside = lambda t: re.sub(r"(-->\n).*?(<!-- /)", r"\1\2", t, flags=re.DOTALL)
    assert outside(new) == outside(twice)


@pytest.mark.parametrize(
    "bad, says",
    [
        (text(name="none"), "nobody defines the table none"),
        (text(end=""), "one has no <!-- /table -->"),
        (text(end="") + text(), "one has no <!-- /table -->"),
    ],
)
def test_wrong_markers_are_one_line(bad, says):
    with pytest.raises(UserError, match=re.escape(says)):
        filled(bad, {"one": made}, "x.md")


def test_a_missing_result_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "RESULTS", tmp_path)
    registry.read.cache_clear()
    try:
        assert program.main(["--check"]) == 2
    finally:
        registry.read.cache_clear()
    assert re.fullmatch(
        r"error: cannot read results/\S+; restore it from git\n", capsys.readouterr().err
    )


def test_a_changed_result_makes_its_note_stale(tmp_path, monkeypatch, capsys):
    copier = json.loads((ROOT / "results/copier.json").read_text())
    copier["copier"][0]["tra"] = 0.5
    monkeypatch.setattr(
        "benchmarks.tables.compressors.read",
        lambda path: (
            copier if path == "copier.json" else json.loads((ROOT / "results" / path).read_text())
        ),
    )
    assert program.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "bits-of-the-latents.md: the table copier is" in said and len(said.splitlines()) == 1


def test_every_table_is_shown_somewhere_but_none_twice_in_one_text():
    shown = {path: names_in(path.read_text()) for path in program.texts()}
    assert all(len(names) == len(set(names)) for names in shown.values())
    assert {name for names in shown.values() for name in names} == set(TABLES)


@pytest.mark.parametrize("path", NOTES, ids=lambda p: p.stem)
def test_a_note_is_short_dated_and_says_where_its_figures_come_from(path):
    said = path.read_text()
    assert re.match(r"20\d\d-\d\d-\d\d-[a-z0-9-]+\.md$", path.name)
    assert len(said.splitlines()) <= 80
    assert all(index.head(said).values())


@pytest.mark.parametrize(
    "path",
    [*NOTES, ROOT / "results/README.md", *(ROOT / "docs").glob("*.md")],
    ids=lambda p: p.stem,
)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_terms_that_notes_link_to_are_in_the_glossary():
    glossary = (ROOT / "docs/glossary.md").read_text()
    terms = [t.lower().strip() for t in re.findall(r"^## (.+)$", glossary, re.MULTILINE)]
    assert terms == sorted(terms)
    anchors = {re.sub(r"[^\w\- ]", "", t).replace(" ", "-") for t in terms}
    linked = {a for p in NOTES for a in re.findall(r"glossary\.md#([\w-]+)", p.read_text())}
    assert linked <= anchors


def test_the_results_folder_stays_below_ten_megabytes():
    assert sum(p.stat().st_size for p in (ROOT / "results").rglob("*") if p.is_file()) <= 10e6


def test_a_row_of_another_length_is_refused_and_digits_are_as_asked():
    with pytest.raises(ValueError, match="2 columns, and a row of 1"):
        markdown(["a", "b"], [["only one"]])
    assert markdown(["a", "b"], [[1, None]]) == "| a | b |\n|---|---|\n| 1 |  |"
    assert percent(0.98816, 2) == "98.82 %" and percent(None) is None


def test_two_tables_of_one_name_are_refused():
    name = next(iter(TABLES))
    with pytest.raises(ValueError, match=name):
        registry.table(name)(made)


def test_no_result_names_a_folder_of_one_machine():
    places = re.compile(r"(?<![\w.])/(tmp|home|root|work|Users)/")
    found = [p for p in (ROOT / "results").rglob("*.json*") if places.search(p.read_text())]
    assert not found
