"""The page of a cut text shows text, spans and track, escaped and of bounded size."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny_bank

from cr_jax.cli import main
from cr_jax.report.segments import render, smoothed
from cr_jax.routing import segment_view
from cr_jax.routing.options import SegmentOptions
from cr_jax.routing.segment import segments
from cr_jax.routing.segment_view import SegmentView
from cr_jax.scoring.batching import BatchSizes

QUICK = SegmentOptions(switch=4.0, minimum=8, delay=64)
SIZES = BatchSizes(experts=2, windows=4)
HOSTILE = '</pre><script>alert(1)</script>&amp;\x1b[31m\u202e"'
TEXT = "abcdefghij" * 9 + "zyxwvutsrq" * 6 + HOSTILE + "abcdefghij" * 7


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.trained_bank()


def viewed(bank, text):
    view = SegmentView(bank.tokenizer)
    found = list(view.watch(segments(bank, text, QUICK, SIZES, view.read)))
    return view, found


class Page(HTMLParser):
    """Tags, attributes and the text of <pre> without its labels; tags must close in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "pre" in self.open and self.open[-1] != "b":
            self.text += data


def test_a_view_holds_the_text_and_the_costs_by_which_it_was_cut(bank):
    view, found = viewed(bank, TEXT)
    plain = list(segments(bank, TEXT, QUICK, SIZES))
    assert [s.characters for s in found] == [
        s.characters for s in plain
    ]  # watching changes nothing
    assert view.spans == found and view.count == len(found)
    assert view.text == TEXT and view.shown == view.tokens == len(TEXT.encode()) == len(view.nats)
    assert sum(tokens for _, tokens in view.of.values()) == view.tokens
    foreign = next(s for s in found if s.expert is None)
    inside = np.arange(view.tokens)
    inside = (inside >= foreign.start) & (inside < foreign.end)
    assert view.nats[inside].mean() > 2 * view.nats[~inside].mean()


def test_the_page_holds_the_text_and_nothing_that_acts(bank):
    view, found = viewed(bank, TEXT)
    raw = render([("<b>name\u202e", view)])
    page = Page(raw)
    assert not {"script", "img", "iframe"} & set(page.tags)
    assert not any(name.startswith("on") or name == "src" for name, _ in page.attributes)
    assert "default-src 'none'" in raw and "http" not in raw.replace("http-equiv", "")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", raw)
    assert page.text.strip("\n") == TEXT.replace("\x1b", "␛").replace("\u202e", "\ufffd")
    text = html.unescape(raw)
    assert "<b>name" not in raw and "the first" not in text
    # Every span is coloured, drawn and in the table; every switch has its line.
    assert raw.count('class="band"') == raw.count('class="cut"') == len(found)
    assert raw.count('class="edge"') == len(found) - 1
    for span in found[1:]:
        assert f'<td class="n">{span.saved:.1f}</td>'.replace("-", "−") in raw
    assert ("[e" in text) == any(s.expert is None for s in found) and "unknown" in text


def test_a_long_text_gives_a_page_of_bounded_size(bank, monkeypatch):
    monkeypatch.setattr(segment_view, "MOST_TOKENS", 300)
    monkeypatch.setattr(segment_view, "MOST_SPANS", 5)
    by_spans, _ = viewed(bank, TEXT * 6)
    assert by_spans.count > 5 == len(by_spans.spans) and by_spans.shown <= 300
    by_tokens, _ = viewed(bank, "abcdefghij" * 60)
    assert (by_tokens.shown, by_tokens.tokens) == (300, 600)
    assert by_tokens.text == ("abcdefghij" * 60)[:300] and len(by_tokens.nats) == 300
    longer, _ = viewed(bank, TEXT * 12)
    assert longer.tokens == 2 * by_spans.tokens
    pages = [render([("x", v)]) for v in (by_spans, longer)]
    assert abs(len(pages[0]) - len(pages[1])) < 200
    assert f"{by_spans.shown} of {by_spans.tokens:,} tokens" in pages[0]
    many = render([("a", by_spans), ("b", by_tokens)])
    assert Page(many).tags.count("section") == 2 and 'href="#t1"' in many


def test_smoothing_is_the_mean_around_each_token():
    flat = smoothed(np.array([0.0, 0.0, 3.0, 0.0, 0.0]), 3)
    np.testing.assert_allclose(flat, [0, 1, 1, 1, 0])
    np.testing.assert_allclose(smoothed(np.arange(4.0), 100), 1.5)
    assert smoothed(np.zeros(0), 3).shape == (0,)


def test_the_command_writes_the_page_beside_what_it_prints(tmp_path, capsys):
    folder, file, page = tmp_path / "bank", tmp_path / "text.txt", tmp_path / "spans.html"
    tiny_bank.stored(folder, tiny_bank.trained_bank())
    file.write_text("abcdefghij" * 9 + "\n" + "zyxwvutsrq" * 6)
    flags = ["segment", "--bank", str(folder), "--switch", "9", "--minimum", "8"]
    assert main([*flags, str(file)]) == 0
    alone = capsys.readouterr().out
    assert main([*flags, "--html", str(page), str(file), str(tmp_path / "none")]) == 2
    out, err = capsys.readouterr()
    assert out == alone and err.count("\n") == 1
    assert page.read_text("utf-8").count('class="band"') == len(out.splitlines()) - 1
    assert main([*flags, "--html", str(file), str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "ends in .html" in err and file.read_text()[0] == "a"
