"""Text out of a bank: the router says which expert's language model speaks, and it speaks.

    prompt -> tokens -> Judge -> Speakers -> Piece, Piece, ...

Not in the paper.  Letters: N tokens so far, K experts that speak together.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from cr_jax.bank import ExpertBank
from cr_jax.data.text_stream import windows_of_text
from cr_jax.data.windows import Tail, Windows
from cr_jax.errors import UserError
from cr_jax.models.lm import grouped
from cr_jax.modular import decode
from cr_jax.modular.characters import Characters
from cr_jax.modular.deciding import Decision, Judge
from cr_jax.modular.language_models import BankLms
from cr_jax.modular.memory import Memory
from cr_jax.modular.options import AUTO, GenerateOptions
from cr_jax.modular.paged import Past
from cr_jax.modular.schedule import mixture
from cr_jax.modular.score import token_nats
from cr_jax.modular.speakers import Speakers
from cr_jax.routing.document import Text
from cr_jax.scoring.batching import BatchSizes

PIECE = 1 << 10  # windows of a prompt that are cut at once


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some text and who spoke it.

    expert: of a mixture the one with the most weight; changed: another than that of the piece
    before; tokens: that the text came from, an end among them; weights: of a mixture, after it.
    """

    text: str
    expert: str
    changed: bool
    tokens: int
    weights: dict[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Span:
    """Consecutive text that one decision spoke.  start: its first token's number."""

    decision: Decision
    start: int
    tokens: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        rest = {"start": self.start, "tokens": self.tokens, "text": self.text}
        return dataclasses.asdict(self.decision) | rest


class Generation:
    """Text that is being generated: iterate over its pieces; what is known so far stands here.

    prompt_tokens: of the prompt and of what goes before it; positions: that a model sees; unseen:
    the first so many tokens are beyond these.  memory: of these, where there is one.  decision: who
    speaks now, and why.  spans: who spoke what.  finish: "" until the end, then "length" (as many
    tokens as were asked for), "end" (the model ended the text) or "stop".
    """

    def __init__(
        self,
        bank: ExpertBank,
        prompt: Int[np.ndarray, " N"],
        judge: Judge,
        options: GenerateOptions,
        past: Past | None = None,
        earlier: int = 0,
    ):
        """prompt: with what goes before it, but for the first `earlier` tokens."""
        self._bank, self._judge, self._options, self._past = bank, judge, options, past
        self._lms: BankLms = judge.lms
        self.prompt_tokens, self.spans, self.finish = earlier + len(prompt), [], ""
        self.positions = self._lms.positions(options.positions)
        self.decision = self._first(prompt)
        self._speakers = Speakers(
            self._lms.models,
            [prompt],
            sampling(bank.tokenizer, self._lms.config.vocab_size, options, 1),
            decode.Rule(options.temperature == 0, options.top_p < 1, options.switch),
            context=self.positions,
            # Pages fill half a cache at most, however short the text is.
            room=options.max_tokens + (2 * past.most if past else 0),
        )
        self._page()
        self._give(prompt)
        self.unseen = earlier + int(self._speakers.dropped[0])
        self._running = self._run()

    def __iter__(self) -> Iterator[Piece]:
        return self._running

    def __next__(self) -> Piece:
        return next(self._running)

    @property
    def text(self) -> str:
        """All text so far, without the prompt."""
        return "".join(span.text for span in self.spans)

    @property
    def tokens(self) -> int:
        """Tokens so far, without the prompt's."""
        return sum(span.tokens for span in self.spans)

    @property
    def memory(self) -> Memory | None:
        """What is kept of the text before the prompt."""
        return self._past.reader.memory if self._past else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        kept = {"memory": self.memory.to_json()} if self.memory is not None else {}
        return {
            **kept,
            "prompt_tokens": self.prompt_tokens,
            "unseen_tokens": self.unseen,
            "text": self.text,
            "tokens": self.tokens,
            "finish": self.finish,
            "spans": [span.to_json() for span in self.spans],
        }

    def _first(self, prompt) -> Decision:
        name = self._options.expert
        if name == AUTO:
            return self._judge.first(prompt)
        self._lms.place(name)
        return Decision((name,), None, "named")

    def _give(self, text) -> None:
        """Lets the decision's experts speak from here."""
        names = self.decision.experts
        places = np.array([self._lms.place(name) for name in names])
        mix = self._options.mix
        if len(names) < mix:  # the seed alone, in a mixture with itself
            self._speakers.give(np.repeat(places[:1], mix)[None])
        elif mix == 1:
            self._speakers.give(places[None])
        else:
            self._speakers.give(places[None], self._posterior(places, text)[None])

    def _posterior(self, places, text) -> np.ndarray:
        """Log weights [K] of a mixture after the last tokens of the text."""
        past = text[-self._options.judged :]
        tokens = np.zeros((1, self._options.judged + 1), np.int32)
        tokens[0, : len(past)] = past
        mask = np.arange(tokens.shape[1])[None] < len(past)
        nats = token_nats(self._lms.config, self._lms.stack(places), tokens, rows=1)
        weights = mixture(jnp.asarray(nats), mask, None, self._options.switch).weights
        return np.log(np.maximum(np.asarray(weights)[:, 0, len(past)], 1e-30))

    def _run(self) -> Iterator[Piece]:
        options, out = self._options, Characters(self._bank.tokenizer, self._options.stop)
        spoken, before, due = 0, None, self._due(0)
        while not self.finish:
            limit = min(decode.CHUNK, options.max_tokens - spoken, due - spoken)
            said = self._speakers.speak(limit)[0]
            text, used = "", 0
            for token in said.tolist():
                used += 1
                if token == self._bank.tokenizer.end_id:
                    self.finish = "end"
                    break
                text += out.add(token)
                if out.stopped:
                    self.finish = "stop"
                    break
            spoken += used
            if not self.finish and spoken == options.max_tokens:
                self.finish = "length"
            if self.finish:
                text += out.end()
            piece = self._piece(text, used, before)
            before = piece.expert
            self._note(spoken - used, piece)
            if spoken == due and not self.finish:
                self._decide()
                due = self._due(spoken)
            yield piece

    def _due(self, spoken: int) -> int:
        """The number of tokens after which it is decided again who speaks."""
        options, due = self._options, [self._options.max_tokens + 1]
        if options.expert == AUTO:
            # By the tokens that the judge sees: the past may be longer.
            due += [options.prefix - (len(self._speakers.texts[0]) - spoken)]
        if (options.expert == AUTO or self._past) and options.every:
            due += [(spoken // options.every + 1) * options.every]
        return min(count for count in due if count > spoken)

    def _decide(self) -> None:
        text = self._speakers.texts[0]
        self._page()
        if self._options.expert != AUTO:
            return
        now = self._judge.again(text, self.decision)
        if now.experts != self.decision.experts:
            self.decision = now
            self._give(text)

    def _page(self) -> None:
        """Puts the pages before the text that its last tokens ask for."""
        if self._past:
            text = self._speakers.texts[0]
            all_seen = self._past.whole and not self._speakers.unseen(len(text), 0)
            dropped = 0 if all_seen else self._speakers.unseen(len(text), self._past.most)
            visible = max(0, len(self._past.tail) - dropped)
            self._speakers.put_before([self._past.pages(text, visible)])

    def _piece(self, text: str, tokens: int, before: str | None) -> Piece:
        names = self.decision.experts
        expert, weights = names[0], None
        if len(names) > 1:
            weights = dict(zip(names, self._speakers.weights[0].tolist(), strict=True))
            expert = max(weights, key=weights.__getitem__)
        return Piece(text, expert, before is not None and expert != before, tokens, weights)

    def _note(self, start: int, piece: Piece) -> None:
        last = self.spans[-1] if self.spans else None
        if last is not None and last.decision is self.decision:
            more = dict(tokens=last.tokens + piece.tokens, text=last.text + piece.text)
            self.spans[-1] = dataclasses.replace(last, **more)
        else:
            self.spans.append(Span(self.decision, start, piece.tokens, piece.text))


def generate(
    bank: ExpertBank,
    prompt: Text,
    options: GenerateOptions | None = None,
    sizes: BatchSizes | None = None,
    context: Text | Memory | None = None,
) -> Generation:
    """Goes on with a text.  prompt: as of `cr_jax.route`; it may be empty, and is then the seed's.

    Iterate over what it gives for the pieces, as they come.  sizes: of the router.  context: a text
    of any length that goes before the prompt; with `options.memory` its windows are kept as latents
    and read again where the last tokens ask for them (`modular.memory`), also of a `Memory` that
    was written before.  `UserError` when the bank has no language models, or not the one that is
    named, or the prompt is no text, and as of `memory.write`.
    """
    options = options or GenerateOptions()
    lms = BankLms(bank)
    grouped.check_kind(lms.config)
    if options.expert == AUTO:
        lms.check_any()
    if options.mix > max(1, len(lms.speakers)):
        raise UserError(
            f"mix={options.mix}: the bank has {len(lms.speakers)} experts with a language model"
        )
    judge = Judge(bank, lms, options.prefix, options.judged, options.mix, sizes)
    ids, past, earlier = tokens_of(bank, prompt), None, 0
    positions = lms.positions(options.positions)
    if options.memory.pages_in and context is not None:
        past = Past.of(bank, context, options.memory, positions, sizes)
        ids = np.concatenate([past.tail, ids])
        earlier = past.reader.memory.tokens - len(past.tail)
    elif isinstance(context, Memory):
        raise UserError("a memory as context is read with memory=latents or ids, its kind")
    elif context is not None:
        # What neither a model nor the judge sees is counted, not held.
        tail = Tail(max(positions, options.judged, options.prefix))
        for block in _blocks(bank, context):
            tail.add(block)
        ids, earlier = np.concatenate([tail.ids, ids]), tail.count - len(tail.ids)
    return Generation(bank, ids, judge, options, past, earlier)


def tokens_of(bank: ExpertBank, text: Text) -> Int[np.ndarray, " N"]:
    """The ids of a text in the bank's form."""
    ids = [np.zeros(0, np.int32), *(block.tokens[block.mask] for block in _blocks(bank, text))]
    return np.concatenate(ids)


def _blocks(bank: ExpertBank, text: Text) -> Iterator[Windows]:
    return windows_of_text(bank.tokenizer, text, bank.model.window, PIECE, bank.text_form)


def sampling(tokenizer: Any, vocab_size: int, options: GenerateOptions, texts: int):
    """How tokens are drawn: only ids that stand for text, and the end."""
    allowed = np.zeros(vocab_size, bool)
    allowed[: tokenizer.vocab_size] = tokenizer.token_bytes > 0
    allowed[tokenizer.end_id] = True
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(options.seed), jnp.arange(texts))
    return decode.Sampling(
        jnp.float32(max(options.temperature, 1e-6)),
        jnp.float32(options.top_p),
        keys,
        jnp.asarray(allowed),
        jnp.int32(tokenizer.end_id),
    )
