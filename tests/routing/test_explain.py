"""An explanation adds up to the route it explains, and its pieces of text to the text."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import tiny_bank

from cr_jax import router
from cr_jax.cli.explanation import lines
from cr_jax.config import Scoring
from cr_jax.data import text_stream
from cr_jax.errors import UserError
from cr_jax.report.explanation import render
from cr_jax.routing import explain as explanation
from cr_jax.routing.explain import explain
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import SURPRISING
from cr_jax.scoring.wording import wording

TEXT = "def f(x):\n\treturn x  # é 中文 \U0001f600 \ufffd \u2581 <0xE2> e\u0301\r\n" * 2


@pytest.fixture(scope="module")
def bank():
    # Raw, for all the odd characters; the other form is in test_text_forms.
    return dataclasses.replace(tiny_bank.in_memory(), text_form="raw")


@pytest.fixture(scope="module")
def found(bank):
    return explain(bank, TEXT, options=RouteOptions(alpha=0), windows=99)


def test_the_tokens_of_a_whole_text_add_up_to_its_route(bank, found):
    assert found.route == router.route(bank, TEXT, RouteOptions(alpha=0, tra="all"))
    assert found.complete and found.route.tokens == len(TEXT.encode())
    assert found.names[0] == found.route.nearest
    assert found.nll.shape == (3, found.route.tokens)
    means = found.nll.mean(-1, dtype=float)
    assert list(means) == sorted(means) and len(set(means)) == 3
    for name, mean in zip(found.names, means, strict=True):
        assert found.route.residuals[name] == pytest.approx(mean, rel=1e-6)
    lengths = [span.end - span.start for span in found.spans]
    # A route adds float32 sums of windows, an explanation float32 nats of tokens.
    assert np.average(found.margins(), weights=lengths) == pytest.approx(
        found.route.margin, abs=1e-6
    )


def test_the_nats_are_those_of_the_bank_s_own_rule(bank, found):
    hidden = bank.changed(scoring=Scoring(parts=4))
    other = explain(hidden, TEXT, options=RouteOptions(alpha=0), windows=99)
    for name, row in zip(other.names, other.nll, strict=True):
        assert other.route.residuals[name] == pytest.approx(row.mean(dtype=float), rel=1e-6)
        assert other.route.residuals[name] != pytest.approx(found.route.residuals[name], rel=1e-3)


def test_a_beginning_is_all_that_is_explained(bank):
    tiny_bank.refuses(
        lambda: explain(bank, TEXT, options=RouteOptions(last_tokens=9)), "last_tokens"
    )
    found = explain(bank, TEXT, options=RouteOptions(max_windows=2))
    assert found.route == router.route(bank, TEXT, RouteOptions(max_windows=2, tra="all"))
    assert found.complete and found.route.windows == found.windows == 2


def test_each_row_is_that_expert_alone(bank, found):
    for name, row in zip(found.names, found.nll, strict=True):
        alone = explain(bank.select([name]), TEXT, windows=99)
        np.testing.assert_allclose(alone.nll[0], row, rtol=1e-4, atol=1e-5)


def test_pieces_of_text_are_whole_characters_and_join_to_the_text(found):
    assert "".join(span.text for span in found.spans) == TEXT
    # A byte is a token here, so each piece is one character.
    assert [span.text for span in found.spans] == list(TEXT)
    assert [s.end - s.start for s in found.spans] == [len(c.encode()) for c in TEXT]
    assert [s.start for s in found.spans[1:]] == [s.end for s in found.spans[:-1]]
    at = TEXT.index("\U0001f600")
    start = len(TEXT[:at].encode())
    four = found.nll[:, start : start + 4].mean(-1)
    np.testing.assert_allclose(found.residuals()[:, at], four, rtol=1e-6)


def test_only_the_first_windows_are_explained_but_the_whole_text_is_routed(bank):
    text = "0123456789abcd中xyz" * 9  # 中 is bytes 14..16: window 0 ends inside it
    found = explain(bank, iter([text[:20], text[20:]]), windows=1)
    assert found.route == router.route(bank, text, RouteOptions(tra="all"))
    assert not found.complete and found.windows == 1
    assert bytes(found.tokens.tolist()) == text.encode()[:16]
    assert "".join(span.text for span in found.spans) == "0123456789abcd\ufffd"
    assert found.spans[-1][:2] == (14, 16)


class Merging(tiny_bank.ByteTokenizer):
    """A line feed and an `a` are one token: a piece that ends between them has others."""

    def __init__(self):
        super().__init__()
        self._table[1] = b"\na"
        self.token_bytes = np.array([len(piece) for piece in self._table], np.int32)

    def encode(self, text):
        return np.frombuffer(text.encode().replace(b"\na", b"\x01"), np.uint8).astype(np.uint32)


@pytest.mark.parametrize("piece", [5, 16, 31, 32, 33, 1000])
def test_the_first_tokens_do_not_depend_on_where_the_head_is_cut(bank, monkeypatch, piece):
    for module in (explanation, text_stream):
        monkeypatch.setattr(module, "PIECE", piece)
    text = "\na" * 100
    merging = dataclasses.replace(bank, tokenizer=Merging())
    found = explain(merging, text, windows=1)
    whole = next(text_stream.windows_of_text(merging.tokenizer, text, 16, 64))
    assert found.tokens.tolist() == whole.tokens[0].tolist()
    # A piece of 32 characters ends after its 16th line feed, the window's last token.
    assert piece != 32 or found.tokens[15] == ord("\n")
    assert text.startswith("".join(span.text for span in found.spans))


def test_the_verdict_says_why(bank):
    known = explain(bank, TEXT, options=RouteOptions(alpha=0))
    p = known.route.p_values[known.route.nearest]
    assert known.verdict == (
        f"{known.route.nearest}: lowest residual by {known.route.margin:.2f} nats/token; "
        f"usual for its own text (p = {p:.3f})"
    )
    unknown = explain(bank, TEXT, options=RouteOptions(alpha=1))
    assert unknown.route.expert is None
    assert unknown.verdict.startswith("unknown: ") and known.route.nearest in unknown.verdict
    assert f"p = {p:.3f}, below alpha = 1" in unknown.verdict
    assert not unknown.witnesses
    each = {"residual": 0.3, "margin": 0.1, "surprise": 0.014}
    route = dataclasses.replace(unknown.route, reason=SURPRISING, witnesses=each)
    surprised = dataclasses.replace(unknown, route=route)
    assert "further off than its predictions say" in surprised.verdict
    assert surprised.witnesses.endswith("residual 0.300, margin 0.100, surprise 0.014")
    assert surprised.witnesses in "\n".join(lines("x", surprised))
    assert surprised.witnesses in render([("x", surprised)])
    short = explain(bank, "seven..", options=RouteOptions(alpha=1))
    assert short.route.expert is not None and "7 tokens are too few" in short.verdict
    assert "too few" not in explain(bank, "eight...", options=RouteOptions(alpha=0)).verdict
    single = explain(bank.select(["e1"]), TEXT, options=RouteOptions(alpha=0))
    assert single.runner_up is None and "e1: the only expert; usual" in single.verdict
    assert not single.margins().any()


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Scoring(), "rebuilds it worse"),
        (Scoring(parts=4), "rebuilds what was hidden of it worse"),
        (Scoring(predicted=True), "predicts it worse"),
    ],
)
def test_the_verdict_names_what_the_bank_s_rule_counts(found, rule, says):
    unknown = dataclasses.replace(
        found, scoring=rule, route=dataclasses.replace(found.route, expert=None)
    )
    assert says in unknown.verdict
    assert unknown.to_json()["rule"] == wording(rule).cost


def test_the_most_telling_tokens(found):
    ranked = found.by_text()
    assert [row.nats for row in ranked] == sorted((r.nats for r in ranked), reverse=True)
    assert {row.text: row.count for row in ranked} == {c: TEXT.count(c) for c in set(TEXT)}
    total = sum(row.nats for row in ranked)
    assert total == pytest.approx(found.route.margin * found.route.tokens, rel=1e-5)
    assert any(row.nats < 0 < ranked[0].nats for row in ranked)
    for row in ranked:
        tokens = row.count * len(row.text.encode())
        assert row.nats == pytest.approx((row.runner_up - row.nearest) * tokens, abs=1e-4)
    worst = found.by_text("residual")
    assert sum(row.nats for row in worst) == pytest.approx(found.nll[0].sum(dtype=float))
    assert [row.text for row in worst] != [row.text for row in ranked]


def test_json_holds_all_of_it(found):
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert "".join(said["texts"]) == TEXT and said["complete"]
    assert list(said["nll"]) == list(found.names)
    np.testing.assert_allclose(list(said["nll"].values()), found.nll, atol=1e-4)


def test_an_expert_without_a_finite_residual_comes_last(bank):
    first = bank.experts[0]
    params = {first.name: jax.tree.map(lambda x: x * np.nan, first.params)}
    broken = tiny_bank.altered(bank, params=params)
    broken = broken.changed(scoring=Scoring(typicality_weight=2.0))
    found, whole = explain(broken, TEXT), explain(bank.select(bank.names[1:]), TEXT)
    assert found.route.nearest == found.names[0] and found.names[2] == bank.names[0]
    assert set(found.names[:2]) == set(whole.names)
    out = "\n".join(lines("x", found, width=100))
    assert re.search(rf"{bank.names[0]} +nan [^█]*\n", out) and out.count("█") > 2
    assert f'<th scope="row">{bank.names[0]}' in render([("x", found)])


def test_bad_input(bank, found):
    for text, count, word in (("", 8, "empty"), ("\ud800", 8, "surrogate"), (TEXT, 0, "windows=0")):
        with pytest.raises(UserError, match=word):
            explain(bank, text, windows=count)
    with pytest.raises(UserError, match="margin"):
        found.by_text("length")
    with pytest.raises(UserError, match="no experts"):
        explain(tiny_bank.in_memory(0), TEXT)


def test_what_is_shown_has_every_experts_tra_under_every_rule():
    bank = tiny_bank.in_memory(rule=Scoring(parts=4))
    shown = explain(bank, TEXT).route
    alone = router.route(bank, TEXT, RouteOptions(tra="nearest"))
    assert set(shown.tra) == set(bank.names) and list(alone.tra) == [alone.nearest]
    assert shown.tra[alone.nearest] == alone.tra[alone.nearest]
    assert (shown.expert, shown.p_values) == (alone.expert, alone.p_values)
