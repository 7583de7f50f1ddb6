"""The report: complete, optional in every part, safe against the text it shows, self-contained."""

import copy
import html
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cr_jax.config import Scoring, to_dict
from cr_jax.errors import UserError
from cr_jax.report import render, sections, write_report
from cr_jax.report.charts import scatter
from cr_jax.report.examples import MOST_TOKENS, piece_text, piece_texts
from cr_jax.scoring.wording import wording

HOSTILE = '"><script>alert(1)</script><img src=//x.test onerror=f()>\x00\ud800\u202e</pre>'
# Section of the dict -> the ids of the page that it alone can fill.
SECTIONS = {
    "fingerprint": "fingerprint",
    "routing": "routing",
    "examples": "windows",
    "geometry": "latents",
    "sections": "study-modular",
    "curves": "training",
    "seconds": "time",
    "provenance": "provenance",
}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    VOID = frozenset({"meta", "link", "wbr"})

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text.append(data)

    def ids(self) -> set[str]:
        return {value for _, name, value in self.attributes if name == "id"}


def paths(value, prefix=()):
    """All key paths of a nested dict; lists are left whole."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*prefix, key)
            yield from paths(item, (*prefix, key))


def test_all_sections_are_there_and_well_formed(make_report):
    page = Page(render(make_report()))
    assert page.ids() >= {*SECTIONS.values(), "how", "unknown"}
    links = {value[1:] for _, name, value in page.attributes if name == "href" and value[0] == "#"}
    assert links == page.ids()
    text = "".join(page.text)
    assert "4 of 4 experts have their lowest nll at home" in text
    assert text.count("Shown false if") == text.count("How to read it") == 11


@pytest.mark.parametrize("key", SECTIONS)
def test_an_absent_section_is_left_out_and_the_others_stay(make_report, key):
    report = make_report()
    del report[key]
    ids = Page(render(report)).ids()
    assert SECTIONS[key] not in ids
    assert ids >= {*SECTIONS.values()} - {SECTIONS[key]}
    only = Page(render({key: make_report()[key]})).ids()
    assert SECTIONS[key] in only


def test_empty_report_is_a_page():
    assert Page(render({})).ids() == set()


@pytest.mark.parametrize("value", ["absent", None, math.nan, {}, [], "text"])
def test_no_key_at_any_depth_is_needed(make_report, value):
    small = make_report(("a", "b"), ("a", "b", "random_tokens"), windows=2, bins=2, components=10)
    small["examples"] = [small["examples"][0] | {"tokens": small["examples"][0]["tokens"][:3]}]
    for path in paths(small):
        report = copy.deepcopy(small)
        parent = report
        for key in path[:-1]:
            parent = parent[key]
        if value == "absent":
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
        page = render(report)
        assert not re.search(r"\b(nan|None|inf)\b", page), path


def test_the_run_sentence_follows_the_numbers(make_report):
    report = make_report()
    report["fingerprint"]["german"]["english"]["nll"] = 0.01
    text = "".join(Page(render(report)).text)
    assert "3 of 4 experts have their lowest nll at home" in text
    assert "on 3 of 4 domains the own expert is the best" in text


def test_the_drawing_does_not_claim_unknown_against_the_numbers(make_report):
    report = make_report()
    assert "→ unknown" in render(report)
    report["fingerprint"]["german"]["random_tokens"]["nll"] = 0.01
    page = render(report)
    assert "→ unknown" not in page and "→ mistaken" in page


RULES = {"seen": Scoring(), "hidden": Scoring(parts=4), "predicted": Scoring(predicted=True)}


@pytest.mark.parametrize("rule", RULES)
def test_the_page_describes_the_rule_that_the_run_routed_by(make_report, rule):
    report = make_report()
    report["provenance"]["config"]["scoring"] = to_dict(RULES[rule])
    for row in report["fingerprint"].values():
        for domain, cell in row.items():
            cell["residual"] = 7.25 if domain == "random_tokens" else cell["nll"] + 1
    page = render(report)
    text = html.unescape(page)
    for name, scoring in RULES.items():
        words = wording(scoring)
        assert (f"residual = {words.formula}" in text) == (name == rule)
        assert (f"the lowest residual, {words.cost}, gets it" in text) == (name == rule)
        assert (f"compares another number: {words.cost}." in text) == (name == rule != "seen")
    assert "with all tokens seen" in text  # what the heat map shows
    # The drawing's bars are what routes, the heat map's cells the nll.
    assert (">7.25</text>" in page) == (rule != "seen")
    assert ('<th class="n">residual</th>' in page) == (rule != "seen")


def test_an_old_report_draws_no_nll_as_the_residual_of_another_rule(make_report):
    report = make_report()
    assert "all experts read it" in render(report)
    report["provenance"]["config"]["scoring"] = to_dict(RULES["predicted"])
    assert "all experts read it" not in render(report)


def test_hostile_text_is_inert(make_report):
    clean = Page(render(make_report()))
    report = make_report((HOSTILE, "b"), (HOSTILE, "b", HOSTILE + "c"))
    report["name"] = HOSTILE
    report["summary"]["bottleneck"] = report["routing"]["rule"] = HOSTILE
    report["geometry"]["method"] = HOSTILE
    report["seconds"] = {HOSTILE: 1.0}
    report["provenance"] = {
        "commit": HOSTILE,
        "command": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "devices": [HOSTILE],
        "config": {HOSTILE: [HOSTILE, math.inf]},
    }
    report["modular"]["prefix"]["64"]["after"][HOSTILE] = {"ppl": {HOSTILE: 3.0, "b": 4.0}}
    for token in report["modular_document"]["windows"][0]:
        token |= {"piece": HOSTILE, "expert": HOSTILE, "label": HOSTILE}
    for token in report["examples"][0]["tokens"]:
        token |= {"piece": HOSTILE, "rebuilt": HOSTILE, "correct": False}
    page = render(report)
    page.encode()  # a lone surrogate would raise
    assert not set("\x00\u202e") & set(page)
    parsed = Page(page)
    assert not {"script", "img"} & set(parsed.tags)
    assert set(parsed.tags) <= set(clean.tags)
    assert {(t, n) for t, n, _ in parsed.attributes} <= {(t, n) for t, n, _ in clean.attributes}
    assert "<script>alert(1)</script>" in "".join(parsed.text)


def test_no_request_leaves_the_page(make_report):
    page = render(make_report())
    parsed = Page(page)
    for tag, name, value in parsed.attributes:
        if name in {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}:
            assert value.startswith("#") or value == "data:,", (tag, name, value)
    assert "://" not in page and "url(" not in page and "@import" not in page
    policy = dict((n, v) for t, n, v in parsed.attributes if t == "meta" and n == "content")
    assert "default-src 'none'" in page and policy


def test_files_hold_the_dict_and_the_page(make_report, tmp_path):
    report = make_report()
    for cell in report["fingerprint"].values():
        cell["random_tokens"]["bits_per_byte"] = 1 / 3
    path = write_report(report, tmp_path / "run")
    assert path == tmp_path / "run" / "report.html"
    assert path.read_text(encoding="utf-8") == render(report)
    assert path.stat().st_size < 1_500_000
    raw = (tmp_path / "run" / "report.json").read_text(encoding="utf-8")
    assert json.loads(raw) == report
    assert list(json.loads(raw)) == sorted(report)
    assert {p.name for p in path.parent.iterdir()} == {"report.html", "report.json"}


def test_json_is_strict_and_takes_numpy_numbers(tmp_path):
    report = {"a": math.nan, "b": [np.float32(0.5), np.int64(3), -math.inf], "c": np.arange(2)}
    write_report(report, tmp_path)
    text = (tmp_path / "report.json").read_text()

    def refuse(name):
        raise AssertionError(name)

    loaded = json.loads(text, parse_constant=refuse)
    assert loaded == {"a": None, "b": [0.5, 3, None], "c": [0, 1]}


def test_a_folder_that_cannot_be_written_is_one_clear_line(make_report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the report to .*file") as info:
        write_report(make_report(), tmp_path / "file")
    assert "\n" not in str(info.value)


def test_wrong_tokens_are_marked_without_colour():
    token = {"piece": "▁", "rebuilt": "<0x0A>", "correct": False, "confidence": 0.4, "nll": 2.0}
    good = token | {"rebuilt": "▁", "correct": True}
    page = render({"examples": [{"expert": "a", "domain": "a", "tokens": [token]}]})
    assert re.search(r'<i class="d6 x"[^>]*>·</i>', page)
    assert re.search(r'<i class="d6 x"[^>]*>↵\n</i>', page)
    page = render({"examples": [{"expert": "a", "domain": "a", "tokens": [good]}]})
    assert re.search(r'<i class="d6"[^>]*> </i>', page) and "0 of 1 tokens wrong" in page
    assert piece_text("<0xE2>") == "<0xE2>"  # half a character is no character


def test_byte_pieces_of_one_character_are_joined():
    pieces = ["<0xC3>", "<0x9C>", "ber", "<0xE2>", "<0x82>", "<0xAC>", "<0x0A>", "▁x"]
    assert piece_texts(pieces) == ["", "Ü", "ber", "", "", "€", "\n", " x"]
    assert "".join(piece_texts(pieces)) == "Über€\n x"
    # Cut, stray or overlong bytes are shown as bytes, and take no neighbour with them.
    for broken in (["<0xC3>"], ["<0xC3>", "a"], ["<0x9C>", "<0xC3>"], ["<0xC0>", "<0x80>"]):
        assert piece_texts(broken) == broken


def test_the_tile_shows_the_hardest_unknown_text(make_report):
    report = make_report()
    rows = {"near": {"auroc": 0.7}, "far": {"auroc": 0.99}, "random_tokens": {"auroc": 0.1}}
    report["ood"] = {**report["ood"], "per_domain": rows, "auroc_unseen_domain": 0.845}
    tiles = re.search(r'<dl class="tiles">.*?</dl>', render(report), re.S)[0]
    assert "0.700" in tiles and "near" in tiles and "0.845" not in tiles


def test_names_on_the_map_do_not_overlap():
    names = [f"a_long_domain_name_{i:02}" for i in range(12)]
    drawn = scatter([[i % 3, 0.01 * i] for i in range(12)], names, {})
    places = [
        (float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)"', drawn)
    ]
    assert len(places) == 12
    for i, (x, y) in enumerate(places):
        for px, py in places[:i]:
            assert abs(y - py) >= 15 or abs(x - px) >= 2 * 3.7 * 20
    assert max(y for _, y in places) < float(re.search(r'viewBox="0 0 \d+ ([\d.]+)"', drawn)[1])


def test_many_points_are_thinned_and_the_page_says_so(make_report):
    page = render(make_report(windows=2000))
    assert "4,000 of 12,000 held-out windows" in page
    assert len(page.encode()) < 500_000


def test_long_examples_do_not_bloat_the_page(make_report):
    report = make_report()
    report["examples"] = report["examples"][:1] * 2000
    page = render(report)
    assert len(page.encode()) < 1_500_000
    assert page.count("<i class=") + page.count("<i title=") < 2 * MOST_TOKENS + 100
    assert "more in report.json" in page


def test_the_looks_at_valid_are_drawn_beside_training(make_report):
    report = make_report()
    without = sections.training(report)
    for curve in report["curves"].values():
        curve |= {
            "valid_step": [10, 20, 30],
            "valid_nll": [3.0, 2.0, 1.0],
            "valid_tra": [0.2, 0.5, 0.9],
        }
    drawn = sections.training(report)
    assert "TRA on valid" in drawn and "loss on valid, nats/token" in drawn
    assert "on valid" not in without and drawn.count("<svg") == without.count("<svg") + 2
