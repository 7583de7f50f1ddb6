"""Parts of `benchmarks.latent_memory`: text, hidden ids and their questions, controls."""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cr_jax.bank import ExpertBank
from cr_jax.data.sources import documents
from cr_jax.data.text_form import formed
from cr_jax.data.windows import Windows, windows_of
from cr_jax.errors import UserError
from cr_jax.modular import decode
from cr_jax.modular.generate import sampling
from cr_jax.modular.language_models import BankLms
from cr_jax.modular.memory import Memory, write
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import IDS, LATENTS, GenerateOptions, MemoryOptions
from cr_jax.modular.speakers import Speakers
from cr_jax.scoring.batching import BatchSizes

ID = 32  # tokens
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
DTYPES = ("bfloat16", "int8", "int4")
KINDS = ("random", "ordinary", "hex", "passage")
SYLLABLES = "ba be bor dal dun fen gar hil jor kel lam mir nor pel quin ros sel tam ul vor wen zar"


class Setting(NamedTuple):
    bank: ExpertBank
    lms: BankLms
    positions: int
    sizes: BatchSizes


@dataclasses.dataclass(frozen=True)
class Needle:
    """A line that was hidden.  start: of the line, answer: of the id, tokens from the beginning."""

    kind: str
    depth: float
    start: int
    line: np.ndarray
    id: np.ndarray

    @property
    def answer(self) -> int:
        return self.start + len(self.line)


def stream(bank: ExpertBank, specs: Sequence[str], most: int) -> np.ndarray:
    """Ids of documents of all sources in turn, an end behind each; at most so many."""
    parts, count = [], 0
    for ids in _in_turn(bank, specs):
        parts += [ids, np.array([bank.tokenizer.end_id])]
        count += len(ids) + 1
        if count >= most:
            break
    if not parts:
        raise UserError("the text is empty: give other sources")
    return np.concatenate(parts).astype(np.int32)[:most]


def longest(
    bank: ExpertBank, specs: Sequence[str], count: int, least: int, most: int
) -> list[np.ndarray]:
    """The beginnings of the longest of the first 2,000 documents, of `most` tokens at most, or of
    all documents as one where none has `least`."""
    found = list(itertools.islice(_in_turn(bank, specs), 2000))
    long = sorted((d for d in found if len(d) >= least), key=len)[::-1][:count]
    return [d[:most] for d in long] or [np.concatenate(found)[:most]]


def _in_turn(bank: ExpertBank, specs: Sequence[str]) -> Iterator[np.ndarray]:
    readers = [documents(spec) for spec in specs]
    while readers:
        for reader in list(readers):
            document = next(reader, None)
            if document is None:
                readers.remove(reader)
                continue
            text = "".join(formed([document.text], bank.text_form))
            yield np.asarray(bank.tokenizer.encode(text), np.int32)


def windows(bank: ExpertBank, ids: np.ndarray) -> Windows:
    return windows_of(ids, bank.model.window, bank.tokenizer.pad_id)


def kind(options: MemoryOptions, kind: str, dtype: str = "bfloat16") -> MemoryOptions:
    return dataclasses.replace(options, kind=kind, dtype=dtype)


def memories(setting: Setting, options, text) -> dict[str, Memory]:
    """Arm -> what it keeps of a text: its ids, and its latents in every format."""
    kinds = {"ids": kind(options, IDS)}
    kinds |= {f"latents_{dtype}": kind(options, LATENTS, dtype) for dtype in DTYPES}
    cut = windows(setting.bank, text)
    return {n: write(setting.bank, cut, k, setting.sizes) for n, k in kinds.items()}


def spans(
    setting: Setting, options: MemoryOptions, tokens: int = 0, queries: int = 1
) -> tuple[int, np.ndarray | None, int]:
    """span, before and pages of `Reader.attended`; tokens: of a text whose last ones are seen as
    they are, 0: none."""
    window = setting.bank.model.window
    span = options.span_of(window, setting.positions)
    seen = (setting.positions - span * options.pages) // 2
    before = np.full(queries, max(0, tokens - seen) // window) if tokens else None
    return span, before, options.pages


def hidden(
    bank: ExpertBank, text: np.ndarray, each: int, seed: int
) -> tuple[np.ndarray, list[Needle]]:
    """(the text with lines written over it, the lines): `each` of every kind at every depth."""
    rng, ids, needles = np.random.default_rng(seed), text.copy(), []
    taken = np.zeros(len(text), bool)
    full = np.asarray(bank.tokenizer.encode("."), np.int32)
    for depth, what, _ in itertools.product(DEPTHS, KINDS, range(each)):
        line = np.asarray(bank.tokenizer.encode(f"\nThe id of {_name(rng)} is "), np.int32)
        answer = _id(bank, what, text, rng)
        whole = np.concatenate([line, answer, full])
        room = len(text) - len(whole)
        spread = max(1, len(text) // 12)
        for _ in range(200):
            at = int(np.clip(depth * room + rng.integers(-spread, spread + 1), 0, room))
            if not taken[at : at + len(whole)].any():
                break
        else:
            raise UserError(f"{len(text):,} tokens have no room for {each} ids of each kind")
        ids[at : at + len(whole)], taken[at : at + len(whole)] = whole, True
        needles.append(Needle(what, depth, at, line, answer))
    return ids, needles


def _name(rng) -> str:
    parts = SYLLABLES.split()
    word = lambda: "".join(rng.choice(parts, 3)).capitalize()
    return f"{word()} {word()}"


def _id(bank: ExpertBank, what: str, text: np.ndarray, rng) -> np.ndarray:
    if what == "random":
        return rng.choice(np.flatnonzero(bank.tokenizer.token_bytes > 0), ID).astype(np.int32)
    if what == "ordinary":
        some = text[text != bank.tokenizer.end_id]
        return rng.choice(some, ID).astype(np.int32)
    if what == "hex":
        return np.asarray(bank.tokenizer.encode(rng.bytes(2 * ID).hex())[:ID], np.int32)
    at = int(rng.integers(0, len(text) - ID))
    return text[at : at + ID].copy()


def questions(needles: Sequence[Needle], ids: np.ndarray, query: int) -> list[np.ndarray]:
    """The last `query` tokens of the text with each line's beginning."""
    return [np.concatenate([ids[-query:], x.line])[-query:] for x in needles]


def speaker(setting: Setting, kept: Memory, among: Collection[str] | None = None) -> int:
    """The place of the language model that speaks: of the expert that keeps most windows, or the
    next that has one and is `among` these."""
    counts = np.bincount(kept.expert, minlength=len(kept.writers))
    names = [list(kept.writers)[i] for i in np.argsort(-counts)]
    some = [n for n in names if n in setting.lms.speakers and (among is None or n in among)]
    if among is not None and not some:
        raise UserError(f"--reader: there is no adapter of {names[0]}, whose text one document is")
    some = some or ["seed"]
    return setting.lms.place(some[0])


class Shown:
    """What a language model says after each question, given pages and the text's last tokens."""

    def __init__(self, setting: Setting, place: int, needles: Sequence[Needle], ids: np.ndarray):
        self._setting, self._place, self._needles, self._ids = setting, place, needles, ids

    def spoken(
        self, pages: Sequence[np.ndarray] | None, recent: int = -1
    ) -> list[dict[str, float]]:
        """Of each question whether its id stands in what was given, and what share of it is said.

        recent: last tokens; -1: those that pages leave room for.
        """
        bank, lms, positions, _ = self._setting
        most = max(map(len, pages)) if pages else 0
        room = (positions - most) // 2 if recent < 0 else min(recent, positions - decode.CHUNK - 2)
        texts = []
        for x in self._needles:
            last = max(0, room - len(x.line))
            texts.append(np.concatenate([self._ids[len(self._ids) - last :], x.line]))
        told = pages or [np.zeros(0, np.int32)] * len(texts)
        said = []
        for i in range(0, len(texts), 32):
            part = texts[i : i + 32]
            drawn = sampling(
                bank.tokenizer, lms.config.vocab_size, GenerateOptions(temperature=0), len(part)
            )
            talk = Speakers(
                lms.models, part, drawn, decode.Rule(greedy=True), positions, room=positions
            )
            talk.put_before(told[i : i + 32])
            talk.give(np.full((len(part), 1), self._place))
            said += talk.speak(ID)
        rows = []
        for x, text, page, words in zip(self._needles, texts, told, said, strict=True):
            given = _holds(page, x.id) or _holds(text[: -len(x.line)], x.id)
            words = np.pad(words, (0, ID - len(words)), constant_values=-1)
            right = words == x.id
            again = copied(np.concatenate([page, text]), ID)
            rows.append(
                {
                    "in_pages": given,
                    "copied": bool((again == x.id).all()),
                    "spoken": right.all(),
                    "spoken_tokens": right.mean(),
                }
            )
        return rows


def copied(tokens: np.ndarray, count: int, most: int = 16) -> np.ndarray:
    """What a reader without weights says next: after the longest stretch of at most `most` tokens
    that stands before, too, what followed there; of equally long ones the last."""
    said = tokens.tolist()
    for _ in range(count):
        length, follows = 0, 0
        for at in np.flatnonzero(np.asarray(said[:-1]) == said[-1]).tolist():
            n = 1
            while n < most and n <= at and said[at - n] == said[-1 - n]:
                n += 1
            if n >= length:
                length, follows = n, said[at + 1]
        said.append(follows)
    return np.array(said[len(tokens) :], np.int32)


def _holds(tokens: np.ndarray, some: np.ndarray) -> bool:
    if len(tokens) < len(some):
        return False
    return bool((np.lib.stride_tricks.sliding_window_view(tokens, len(some)) == some).all(1).any())


def shares(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means."""
    return {n: round(float(np.mean([r[n] for r in rows])), 4) for n in rows[0]}


def bare(kept: Memory) -> Memory:
    """Without its corrections."""
    none = kept.fixes._replace(
        start=np.zeros_like(kept.fixes.start), at=kept.fixes.at[:0], ids=kept.fixes.ids[:0]
    )
    return dataclasses.replace(kept, fixes=none)


def rebuilt(reader: Reader, needles: Sequence[Needle], ids: np.ndarray) -> dict[str, float]:
    """Share of tokens that latents give back, and of whole ids by kind."""
    window = reader.memory.model.window
    some = np.unique(np.linspace(0, len(reader.memory) - 1, 256).astype(int))
    right = reader.tokens(some) == np.stack(
        [np.pad(ids[w * window : (w + 1) * window], (0, window))[:window] for w in some]
    )
    mask = np.arange(window) < reader.memory.length[some][:, None]
    found = {"tokens": float(right[mask].mean())}
    for what in KINDS:
        whole = []
        for x in (x for x in needles if x.kind == what):
            first, last = x.answer // window, (x.answer + ID - 1) // window
            back = reader.tokens(np.arange(first, last + 1)).reshape(-1)
            whole.append((back[x.answer - first * window :][:ID] == x.id).all())
        found[what] = float(np.mean(whole))
    return found
