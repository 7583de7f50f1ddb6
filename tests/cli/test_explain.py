"""`cr-jax route --explain`: aligned bars, a verdict, colours that only colour, a safe page."""

import dataclasses
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny_bank

import cr_jax
from cr_jax.bank import Expert, set_typicality_weight
from cr_jax.cli import main
from cr_jax.cli.explanation import colours, lines
from cr_jax.config import Scoring
from cr_jax.report.explanation import (
    MARGIN_EDGES,
    RESIDUAL_EDGES,
    margin_step,
    render,
    residual_step,
)
from cr_jax.routing.explain import explain
from cr_jax.routing.options import RouteOptions
from cr_jax.scoring.calibration import Calibration
from cr_jax.scoring.wording import wording

TEXT = "def route(text):\r\n    return min(experts)\t# ünïcödé 中文\n\n" * 2
HOSTILE = (
    "\"'></pre><script>alert(1)</script><img src=//x.test onerror=f()> &amp; "
    "\x1b[2J\x1b]0;title\x07\x9b5m\x7f\b\u202etxt.exe\u2066\n"
)
SGR = re.compile(r"\x1b\[(\d+(;\d+)*)m")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain") / "bank"
    # Raw, so that carriage returns are seen; the other form is in test_text_forms.
    tiny_bank.on_disk(folder, experts=3, text_form="raw")
    return str(folder)


@pytest.fixture(scope="module")
def bank(stored):
    return cr_jax.ExpertBank.load(stored)


@pytest.fixture
def files(tmp_path):
    for name, text in (("text.txt", TEXT), ("hostile.txt", HOSTILE)):
        (tmp_path / name).write_bytes(text.encode())
    return str(tmp_path / "text.txt"), str(tmp_path / "hostile.txt")


@pytest.fixture
def run(stored, capsys):
    def call(*argv):
        status = main(["route", "--bank", stored, *map(str, argv)])
        return status, *capsys.readouterr()

    return call


def test_bars_are_aligned_sorted_and_in_proportion(run, files, bank):
    status, out, err = run("--explain", files[0])
    assert (status, err) == (0, "")
    assert "\x1b" not in out  # not a terminal
    found = explain(bank, TEXT)
    rows = re.findall(r"^  (e\d) +([\d.]+) (█*[▏▎▍▌▋▊▉]?) +([\d.]+)  ([\d.]+)$", out, re.M)
    assert [row[0] for row in rows] == list(found.names)
    residuals = found.route.residuals
    assert [float(row[1]) for row in rows] == [round(residuals[n], 3) for n in found.names]
    assert [float(row[3]) for row in rows] == [
        round(found.route.p_values[n], 3) for n in found.names
    ]
    bars = [len(row[2]) for row in rows]
    for name, bar in zip(found.names, bars, strict=True):
        assert abs(bar - bars[-1] * residuals[name] / residuals[found.names[-1]]) <= 1
    shown = [line for line in out.splitlines() if re.match("  e", line)][:3]
    assert len(set(map(len, shown))) == 1
    assert found.verdict in out.splitlines()


def test_bars_of_ascii_and_narrow_terminals(bank):
    found = explain(bank, TEXT)
    for width in (1, 40, 80, 200):
        bars = list(lines("x", found, width=width, blocks=False))[2:5]
        assert all(line.isascii() and "#" in line for line in bars)
        assert len({len(line) for line in bars}) == 1
        assert width < 50 or len(bars[0]) <= width


def test_without_a_terminal_the_most_telling_tokens_are_listed(run, files, bank):
    out = run("--explain", "--alpha", 0, files[0])[1]
    ranked = explain(bank, TEXT).by_text()
    _, head, *rows = out[out.index("tokens that speak most") :].splitlines()
    assert head.split()[:3] == ["token", "times", "margin"]
    assert rows[0].startswith(f"  {ranked[0].text!r}") and f"{ranked[0].nats:.2f}" in rows[0]
    assert f"'{ranked[-1].text}'" in out and "rebuilds worst" not in out
    assert "rebuilds worst" in run("--explain", "--alpha", 1, files[0])[1]


@pytest.mark.parametrize("view", ["residual", "margin"])
@pytest.mark.parametrize("colour", ["256", "truecolor"])
def test_colours_only_colour(bank, view, colour):
    found = explain(bank, TEXT + HOSTILE, windows=99)
    out = "\n".join(lines("x", found, colour, view))
    # Nothing but colours and resets, each closed before its line ends.
    plain = SGR.sub("", out)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)
    for line in out.split("\n"):
        codes = [code for code, _ in SGR.findall(line)]
        assert codes[1::2] == ["0"] * (len(codes) // 2) and len(codes) % 2 == 0
        assert all(";2;" in code if colour == "truecolor" else ";5;" in code for code in codes[::2])
    body = plain.replace("↵", "").replace("⇥", "")
    assert "def route(text):␍\n    return min(experts)\t# ünïcödé 中文\n\ndef" in body
    assert "<script>alert(1)</script>" in body and "␛[2J␛]0;title␇\ufffd5m␡␈\ufffdtxt" in body
    # Exactly the characters with a step are coloured, and only then is a line's end drawn.
    values = found.residuals()[0] if view == "residual" else found.margins()
    step = residual_step if view == "residual" else margin_step
    legend = len(RESIDUAL_EDGES) if view == "residual" else 2 * len(MARGIN_EDGES)
    strong = [
        span.text for span, value in zip(found.spans, values.tolist(), strict=True) if step(value)
    ]
    assert 0 < len(strong) <= len(found.spans)
    assert out.count("\x1b[0m") == len(strong) + legend
    assert plain.count("↵") == strong.count("\n")


def test_the_margin_colours_other_tokens(bank):
    found = explain(bank, TEXT)
    texts = ["\n".join(lines("x", found, "256", view)) for view in ("residual", "margin")]
    assert texts[0] != texts[1] and "for e" in texts[1].splitlines()[-1]


def test_steps():
    assert [residual_step(x) for x in (0, 0.0999, 0.1, 1e9, np.inf)] == [0, 0, 1, 9, 9]
    assert [margin_step(x) for x in (0, 0.09, -0.1, 0.1, -9, 9)] == [0, 0, -1, 1, -5, 5]
    assert residual_step(float("nan")) in range(10)


@pytest.mark.parametrize(
    ("tty", "environment", "wanted", "answer"),
    [
        (True, {"COLORTERM": "truecolor"}, "auto", "truecolor"),
        (True, {}, "auto", "256"),
        (True, {"NO_COLOR": "1"}, "auto", "plain"),
        (True, {"NO_COLOR": ""}, "auto", "256"),
        (True, {"TERM": "dumb"}, "auto", "plain"),
        (False, {}, "auto", "plain"),
        (False, {"NO_COLOR": "1"}, "always", "256"),
        (True, {}, "never", "plain"),
    ],
)
def test_when_to_colour(monkeypatch, tty, environment, wanted, answer):
    for name in ("NO_COLOR", "COLORTERM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty, raising=False)
    assert colours(wanted) == answer


def test_flags(run, files, tmp_path):
    assert "\x1b[38;" in run("--explain", "--color", "always", files[0])[1]
    both = run("--margin", "--windows", 1, *files)[1]
    assert both.count("below: the first 1 of") == 2
    for argv, word in (
        (("--windows", 0, "--explain"), "--windows"),
        (("--color", "pink"), "--color"),
    ):
        status, out, err = run(*argv, files[0])
        assert (status, out) == (2, "") and word in err and err.count("\n") == 1
    status, out, _ = run("--explain", files[0], tmp_path / "gone")
    assert status == 2 and "text.txt: 1" not in out and "windows" in out


def test_json(run, files, bank):
    said = json.loads(run("--json", "--explain", files[1])[1])
    assert "".join(said["explanation"]["texts"]) == HOSTILE
    assert said["residuals"] == explain(bank, HOSTILE).route.residuals
    assert "explanation" not in json.loads(run("--json", files[1])[1])


class Page(HTMLParser):
    """Tags and attributes of a page, and the text of each <pre> without the line-end marks."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value) for name, value in attrs]
        if tag == "pre":
            self.texts.append("")
        if tag not in ("meta", "link", "wbr", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "pre" in self.open and self.open[-1] != "u":
            self.texts[-1] += data


def test_the_page_holds_each_text_and_nothing_that_acts(run, files, tmp_path, bank):
    out = tmp_path / "why.html"
    status, said, err = run("--html", out, *files)
    assert (status, err) == (0, "") and len(said.splitlines()) == 2
    raw = out.read_text("utf-8")
    page = Page(raw)
    assert not {"script", "img", "iframe", "svg"} & set(page.tags)
    assert not any(name.startswith("on") or name == "src" for name, _ in page.attributes)
    assert all(
        value[0] == "#" or value == "data:," for name, value in page.attributes if name == "href"
    )
    assert "default-src 'none'" in raw and "http" not in raw.replace("http-equiv", "")
    assert page.texts[0] == "\n" + TEXT.replace("\r", "␍")
    assert page.texts[1].count("<script>alert(1)</script>") == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", raw)
    # Pointing at a token shows every expert's residual.
    found = explain(bank, TEXT)
    hovers = [value for name, value in page.attributes if name == "data-n"]
    assert len(hovers) == len(TEXT) + len(HOSTILE)
    for hover, row in zip(hovers, found.residuals().T, strict=False):
        assert [f"{n} {x:.2f}" for n, x in zip(found.names, row, strict=True)] == (
            hover.split("”  ")[1].split(" · ")
        )
    assert found.verdict in raw and "the first" not in raw
    assert [p.name for p in tmp_path.iterdir() if "why" in p.name] == ["why.html"]


def test_tints_follow_the_numbers_and_a_cut_is_said(bank):
    found = explain(bank, TEXT, windows=2)
    raw = render([("x", found)])
    kinds = [set(kind.split()) for kind in re.findall(r'<i(?: class="([^"]*)")? data-n', raw)]
    rows = zip(kinds, found.residuals()[0].tolist(), found.margins().tolist(), strict=True)
    for kind, residual, margin in rows:
        step = margin_step(margin)
        wanted = {f"r{residual_step(residual)}"} if residual_step(residual) else set()
        assert kind == wanted | ({f"{'f' if step > 0 else 'a'}{abs(step)}"} if step else set())
    assert f"the first 2 of {found.route.windows} windows" in raw
    single = render([("x", explain(bank.select(["e0"]), TEXT))])
    assert 'class="by-margin"' not in single and 'class="by-margin"' in raw


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("text.txt", "ends in .html"),
        ("page.html", "to be read"),
        ("gone/why.html", "exists"),
        ("", "ends in .html"),
        ("folder.html", "folder"),
    ],
)
def test_a_page_never_costs_a_text(run, files, tmp_path, name, word):
    (tmp_path / "folder.html").mkdir()
    read = tmp_path / ("page.html" if name == "page.html" else "text.txt")
    read.write_text("<p>a text to route</p>")
    before = read.read_bytes()
    status, out, err = run("--html", tmp_path / name if name else "", read)
    assert (status, out) == (2, "") and word in err and err.count("\n") == 1
    assert read.read_bytes() == before


def test_page_and_lines_name_what_the_bank_s_rule_counts(bank):
    found = explain(bank, TEXT, options=RouteOptions(alpha=1), windows=99)
    for rule, verb, done, paper in (
        (Scoring(), "rebuilds", "rebuilt", True),
        (Scoring(predicted=True), "predicts", "predicted", False),
    ):
        told = dataclasses.replace(found, scoring=rule)
        page, cost = html.unescape(render([("a", told)])), wording(rule).cost
        assert f"lowest residual: {cost}." in page and f"or more: {done} badly" in page
        assert f"What {told.names[0]} {verb} worst" in page
        assert ("The residual is the paper's" in page) == paper
        assert ("not in the paper, whose own is" in page) != paper
        assert f"tokens that {told.names[0]} {verb} worst" in "\n".join(lines("a", told))
        assert f"{cost}, by {told.names[0]}, from:" in "\n".join(lines("a", told, "256"))


def test_the_typicality_penalty_is_shown_and_ranks(tmp_path, capsys, files, bank):
    plain = explain(bank, TEXT)
    first, *_, last = plain.names
    limits = {name: 99.0 for name in plain.names} | {
        first: plain.route.residuals[first] - 2 * (plain.route.residuals[last] - 1)
    }
    limits = {name: max(x, 0.1) for name, x in limits.items()}
    folder = tmp_path / "typical"
    made = cr_jax.ExpertBank.create(folder, bank.model, bank.tokenizer, text_form="raw")
    for name in bank.names:
        own = Calibration({8: np.full(40, limits[name])})
        made = made.add(Expert(name, bank.expert_params(name), own))
    set_typicality_weight(folder, 2.0)
    found = explain(cr_jax.ExpertBank.load(folder), TEXT, options=RouteOptions(alpha=0))
    assert found.names == (*plain.names[1:], first)
    added = found.route.typicality_penalty[first]
    page = tmp_path / "page.html"
    how = ["route", "--bank", str(folder), "--alpha", "0"]
    assert main([*how, "--explain", "--html", str(page), files[0]]) == 0
    out = capsys.readouterr().out
    rows = re.findall(
        r"^  (e\d) +([\d.]+) \+ +([\d.]+) (█+[▏▎▍▌▋▊▉]?)(░*) +[\d.]+  [\d.]+$", out, re.M
    )
    assert [(row[0], float(row[1]), float(row[2])) for row in rows] == [
        (n, round(found.route.residuals[n], 3), round(found.route.typicality_penalty[n], 3))
        for n in found.names
    ]
    assert [bool(row[4]) for row in rows] == [False, False, True]
    assert out.count(found.words.added) == 1 and "lowest residual with its penalty by" in out
    text = html.unescape(page.read_text())
    assert text.count(found.words.added) == 2 and f"+ {added:.3f}" in text  # header and legend
    bars = list(lines("x", found, blocks=False, width=80))[2:5]
    assert all(line.isascii() for line in bars) and len({len(line) for line in bars}) == 1
    assert main([*how, files[0]]) == 0
    line = capsys.readouterr().out
    assert f"{first} {found.route.residuals[first]:.3f}+{added:.3f}  (" in line
    assert main(["bank", "list", "--bank", str(folder)]) == 0
    assert found.words.added in capsys.readouterr().out
    # Without a weight neither the columns nor the legend are there.
    assert "penalty" not in "\n".join(lines("x", plain)) + render([("x", plain)])
