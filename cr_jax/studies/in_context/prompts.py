"""Prompts of several parts, made of a run's own text.

Blocks of another domain before a query, a text that is repeated, a text that quotes another, a
docstring with the function that it describes.  Not in the paper.
Letters: T tokens.
"""

import ast
import dataclasses
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from cr_jax.data.windows import Windows

Range = tuple[int, int]  # tokens: from, to (both possible)
Own = Mapping[str, Windows]  # domain -> its windows, in the order of the bank's experts
QUESTION, ANSWER = (8, 192), (24, 192)  # tokens of the two parts of an instruction
OF_ONE = 3  # functions of one document at most


@dataclasses.dataclass(frozen=True)
class Prompt:
    """ids: all its tokens; start: where the query begins, which ends the prompt; domain: the
    query's; other: the domain of what stands before or inside, -1 where it is none of the bank."""

    ids: Int[np.ndarray, " T"]
    start: int
    domain: int
    other: int = -1

    @property
    def query(self) -> Int[np.ndarray, " _"]:
        return self.ids[self.start :]


class _Text:
    """Draws stretches of a domain's consecutive tokens."""

    def __init__(self, own: Own, seed: Sequence[int]):
        self.flat = [w.tokens[w.mask].astype(np.int32) for w in own.values()]
        self.draw = np.random.default_rng(seed)

    def pair(self) -> tuple[int, int]:
        """Two different domains; one of a bank of one."""
        first = int(self.draw.integers(len(self.flat)))
        rest = [e for e in range(len(self.flat)) if e != first]
        return first, int(self.draw.choice(rest)) if rest else first

    def stretch(self, domain: int, length: Range) -> Int[np.ndarray, " _"]:
        text = self.flat[domain]
        size = min(int(self.draw.integers(length[0], length[1] + 1)), len(text))
        start = int(self.draw.integers(len(text) - size + 1))
        return text[start : start + size]


def shots(
    own: Own, ks: Sequence[int], block: Range, query: Range, count: int, seed: int
) -> dict[int, list[Prompt]]:
    """k -> prompts of k blocks of another domain, and a query.

    The i-th prompts of all k have the same query, and the blocks of a smaller k are the last ones
    of a larger k.
    """
    text, found = _Text(own, [seed, count, query[1]]), {k: [] for k in ks}
    for _ in range(count):
        domain, other = text.pair()
        asked = text.stretch(domain, query)
        blocks = [text.stretch(other, block) for _ in range(max(ks))]
        for k in ks:
            ids = np.concatenate([*blocks[len(blocks) - k :], asked])
            found[k].append(Prompt(ids, len(ids) - len(asked), domain, other if k else -1))
    return found


def repeats(
    own: Own, times: Sequence[int], unit: int, count: int, seed: int
) -> dict[int, list[Prompt]]:
    """n -> prompts of the same `unit` tokens n times; the query is the last copy."""
    text, found = _Text(own, [seed, count, unit, 1]), {n: [] for n in times}
    for _ in range(count):
        domain, _ = text.pair()
        once = text.stretch(domain, (unit, unit))
        for n in times:
            found[n].append(Prompt(np.tile(once, n), (n - 1) * len(once), domain, domain))
    return found


def quotes(own: Own, around: Range, quoted: Range, count: int, seed: int) -> list[Prompt]:
    """Text of one domain with a quotation of another inside; the query is what follows that."""
    text, found = _Text(own, [seed, count, 2]), []
    for _ in range(count):
        domain, other = text.pair()
        before, after = text.stretch(domain, around), text.stretch(domain, around)
        ids = np.concatenate([before, text.stretch(other, quoted), after])
        found.append(Prompt(ids, len(ids) - len(after), domain, other))
    return found


def plain(own: Own, length: Range, count: int, seed: int) -> list[Prompt]:
    """Texts of one domain: the control in which nothing stands before the query."""
    text, found = _Text(own, [seed, count, 3]), []
    for _ in range(count):
        domain, _ = text.pair()
        found.append(Prompt(text.stretch(domain, length), 0, domain))
    return found


def instructions(
    own: Own, tokenizer: Any, count: int, seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """A question in prose and its answer in code, twice: each function after its own docstring, and
    after the beginning of a document of another domain (a word problem, say).

    Functions of every domain whose documents Python can parse; at most `count`, none where there is
    none.
    """
    documents = [_documents(w, tokenizer.end_id) for w in own.values()]
    text, pairs = _Text(own, [seed, count, 4]), []
    for domain, of in enumerate(documents):
        for ids in of:
            for question, answer in list(functions(tokenizer.decode(ids)))[:OF_ONE]:
                asked = np.asarray(tokenizer.encode(question + "\n\n"), np.int32)
                said = np.asarray(tokenizer.encode(answer), np.int32)
                if _within(asked, QUESTION) and _within(said, ANSWER):
                    pairs.append((domain, asked, said))
    chosen = [pairs[i] for i in sorted(text.draw.permutation(len(pairs))[:count])]
    described = [Prompt(np.concatenate([a, s]), len(a), domain) for domain, a, s in chosen]
    asked_else = []
    for domain, _, said in chosen:
        others = [e for e in range(len(documents)) if e != domain and len(documents[e])]
        if others:
            other = int(text.draw.choice(others))
            of = documents[other]
            begun = of[int(text.draw.integers(len(of)))]
            size = min(len(begun), int(text.draw.integers(*QUESTION, endpoint=True)))
            ids = np.concatenate([begun[:size].astype(np.int32), said])
            asked_else.append(Prompt(ids, size, domain, other))
    return described, asked_else


def functions(text: str) -> Iterator[tuple[str, str]]:
    """(docstring, the function without it) of every function of a Python file that has both.

    >>> list(functions('def f(x):\\n    "Half of x."\\n    return x / 2\\n'))
    [('Half of x.', 'def f(x):\\n    return x / 2\\n')]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in somebody else's strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        said, first = ast.get_docstring(node), node.body[0]
        if said and first.lineno > node.lineno:
            rest = lines[node.lineno - 1 : first.lineno - 1]
            rest += lines[first.end_lineno : node.end_lineno]
            yield said, textwrap.dedent("\n".join(rest)).strip("\n") + "\n"


def _documents(windows: Windows, end_id: int) -> list[Int[np.ndarray, " _"]]:
    """Documents of packed windows, which their end tokens part, or of windows cut one by one."""
    ids = windows.tokens[windows.mask]
    ends = np.flatnonzero(ids == end_id)
    if len(ends):
        parts = (part[part != end_id] for part in np.split(ids, ends))
        return [part for part in parts if len(part)]
    changes = np.flatnonzero(np.diff(windows.document)) + 1
    return np.split(ids, np.cumsum(windows.mask.sum(-1))[changes - 1]) if len(changes) else [ids]


def _within(ids, length: Range) -> bool:
    return length[0] <= len(ids) <= length[1]
