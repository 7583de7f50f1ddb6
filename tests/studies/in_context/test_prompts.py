"""Prompts hold the parts that they name."""

import made_experts
import numpy as np
import pytest

from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.data.windows import Windows, windows_of
from cr_jax.studies.in_context import prompts

FILE = '''
import os

class A:
    def first(self):
        """Says {n} things."""
        return [self.name] * {n}  # all of them

def second(x):
    """Twice x."""
    # a reason
    y = x + x
    return y

def third(x): "one line"; return x
def bare(x):
    return x
def only_words():
    """Nothing else."""
'''


def domains(ids):
    return ids // made_experts.SIZE


def test_the_same_query_follows_nested_blocks_of_another_domain():
    found = prompts.shots(made_experts.own(), (0, 1, 4), (5, 9), (7, 7), 20, seed=3)
    for none, one, four in zip(*found.values(), strict=True):
        assert none.start == 0 and none.other == -1 and len(none.ids) == 7
        assert (one.query == none.ids).all() and (four.query == none.ids).all()
        assert 5 <= one.start <= 9 and 20 <= four.start <= 36
        assert (four.ids[four.start - one.start : four.start] == one.ids[: one.start]).all()
        assert (domains(one.query) == one.domain).all() and one.other != one.domain
        assert (domains(four.ids[: four.start]) == four.other).all()
    assert len({p.domain for p in found[1]}) == len({p.other for p in found[1]}) == 3
    again = prompts.shots(made_experts.own(), (0, 1, 4), (5, 9), (7, 7), 20, seed=3)
    assert all((a.ids == b.ids).all() for a, b in zip(found[4], again[4], strict=True))


def test_a_repeated_text_is_the_same_tokens_again():
    found = prompts.repeats(made_experts.own(), (1, 4), 6, 5, seed=0)
    for once, four in zip(*found.values(), strict=True):
        assert (four.ids.reshape(4, 6) == once.ids).all() and four.start == 18


def test_a_quotation_stands_between_two_parts_of_one_domain():
    for p in prompts.quotes(made_experts.own(), (6, 8), (3, 5), 10, seed=0):
        owner = domains(p.ids)
        assert owner[0] == owner[-1] == p.domain != p.other
        assert (owner == p.domain).sum() in range(12, 17) and (owner == p.other).sum() in (3, 4, 5)
        assert (domains(p.query) == p.domain).all()
    assert all(
        (domains(p.ids) == p.domain).all() for p in prompts.plain(made_experts.own(), (9, 20), 5, 0)
    )


def test_functions_are_parted_from_their_docstrings():
    found = dict(prompts.functions(FILE.replace("{n}", "3")))
    assert found.keys() == {"Says 3 things.", "Twice x."}
    assert found["Says 3 things."].startswith("def first(self):\n    return [self.name] * 3  # all")
    assert found["Twice x."] == "def second(x):\n    # a reason\n    y = x + x\n    return y\n"
    for broken in ("def f(:", "x = '\0'", "(" * 9000, "s = '\\d'"):
        assert list(prompts.functions(broken)) == []


def test_instructions_are_read_from_the_domains_that_have_functions():
    code = ByteTokenizer()
    files = [FILE.replace("{n}", str(n)) for n in range(3)]
    ids = np.concatenate([[*code.encode(f), code.end_id] for f in files]).astype(np.int32)
    prose = np.concatenate([[*code.encode("How many are there? " * 9), code.end_id]] * 2)
    own = {"prose": windows_of(prose.astype(np.int32), 16, 0), "code": windows_of(ids, 16, 0)}
    described, other = prompts.instructions(own, code, 50, seed=0)
    assert len(described) == len(other) == 6 and {p.domain for p in described} == {1}
    for p, q in zip(described, other, strict=True):
        text = code.decode(p.ids)
        assert text[: p.start].strip() in ("Twice x.", *(f"Says {n} things." for n in range(3)))
        assert text[p.start :].startswith("def ") and '"""' not in text
        assert (q.query == p.query).all() and q.other == 0
        assert code.decode(q.ids[: q.start]).startswith("How many")
    assert len(prompts.instructions(own, code, 2, seed=0)[0]) == 2
    assert prompts.instructions({"prose": own["prose"]}, code, 9, seed=0) == ([], [])
    # Windows that were cut document by document have no end tokens.
    parts = [windows_of(np.asarray(code.encode(f), np.int32), 16, 0) for f in files]
    joined = [np.concatenate([getattr(w, f) for w in parts]) for f in ("tokens", "mask")]
    apart = Windows(*joined, np.repeat(np.arange(3), [len(w) for w in parts]))
    again, _ = prompts.instructions({**own, "code": apart}, code, 50, seed=0)
    assert sorted(p.ids.tobytes() for p in again) == sorted(p.ids.tobytes() for p in described)


def test_a_domain_shorter_than_a_part_gives_all_that_it_has():
    short = {n: w.take(slice(1)) for n, w in made_experts.own().items()}
    assert {len(p.ids) for p in prompts.plain(short, (40, 50), 4, seed=0)} == {16}
    with pytest.raises(StopIteration):
        next(prompts.functions("not python at all"))
