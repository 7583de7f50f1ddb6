"""Tokens one after another: of B texts at once, each spoken by its own experts.  Pure and jitted.

    prefill -> Talk -> speak -> tokens [B, T], Talk -> speak -> ...

`speak` runs a chunk of tokens in one program, so that text streams chunk by chunk; who speaks
changes between chunks (`modular.speakers`).  A text is spoken by K experts, K rows of the batch
that read the same tokens: with K = 1 by its expert, otherwise by the posterior mixture of
`modular.schedule`.  Not in the paper.
Letters: B texts, K experts of a text, V vocabulary, T tokens of a chunk.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import LmConfig
from cr_jax.models.lm import grouped
from cr_jax.modular.schedule import mix_log_probs, update

CHUNK = 32  # tokens of a call of `speak`, at most
NONE = -1  # in place of a token that a finished text does not have


class Voices(NamedTuple):
    """The models that speak, and which rows are whose."""

    weights: grouped.Weights
    seats: grouped.Seats


class Talk(NamedTuple):
    """B texts under way.  Text b has the rows b K ... b K + K - 1."""

    cache: grouped.RowCache  # of B K rows
    states: Any  # [B K, D], which predict the next token
    log_weights: Any  # float32 [B, K], of the mixture before the next token
    spoken: Any  # int32 [B]: tokens so far, without those that were given
    done: Any  # bool [B]: has said its end


class Sampling(NamedTuple):
    """How a token is drawn.

    temperature, top_p: above 0, the latter at most 1; float32, of all texts.  keys: of each text
    [B], which the number of a token is folded into: a text's tokens are the same in any batch.
    allowed: bool [V], True where an id may be said.  end: the id that ends a text.
    """

    temperature: Any
    top_p: Any
    keys: Any
    allowed: Any
    end: Any


class Rule(NamedTuple):
    """What programs differ by.

    greedy: the most likely token, nothing is drawn.  nucleus: top_p is below 1.  switch: the
    switching prior of a mixture.
    """

    greedy: bool = False
    nucleus: bool = True
    switch: float = 0.01


@functools.partial(jax.jit, static_argnums=(0, 5))
def prefill(
    config: LmConfig,
    weights: grouped.Weights,
    seats: grouped.Seats,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    length: int,
) -> tuple[Float[Array, "B D"], grouped.RowCache]:
    """`grouped.prefill`, compiled: states after each row's tokens, and a cache of `length`."""
    return grouped.prefill(config, weights, seats, tokens, mask, length)


@functools.partial(jax.jit, donate_argnums=0)
def with_rows(
    talk: Talk, rows: Int[Array, " N"], states: Float[Array, "N D"], cache: grouped.RowCache
) -> Talk:
    """The talk with newly filled rows; rows beyond it are left out."""
    return talk._replace(
        cache=grouped.with_rows(talk.cache, rows, cache),
        states=talk.states.at[rows].set(states, mode="drop"),
    )


@functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=2)
def speak(
    config: LmConfig,
    voices: Voices,
    talk: Talk,
    sampling: Sampling,
    limit: int | Int[Array, ""],
    rule: Rule,
) -> tuple[Int[Array, "B T"], Talk]:
    """(the next `limit` <= `CHUNK` tokens of each text, the talk after them).

    T = `CHUNK`; `NONE` stands beyond the limit and after a text's end.  It stops early once all
    texts have ended.  The caches must have room for `limit` more tokens.
    """
    batch, several = talk.log_weights.shape
    weights, seats = voices

    def going(carry):
        at, _, talk = carry
        return (at < limit) & ~jnp.all(talk.done)

    def one(carry):
        at, said, talk = carry
        each = grouped.log_probs(weights, seats, talk.states).reshape(batch, several, -1)
        if several == 1:
            mixed = each[:, 0]
        else:
            mixed = mix_log_probs(jnp.exp(talk.log_weights), each)
        token = next_token(mixed, sampling, talk.spoken, rule)
        if several == 1:
            log_weights = talk.log_weights
        else:
            nats = -jnp.take_along_axis(each, token[:, None, None], 2)[..., 0]
            uniform = jnp.full((several,), -jnp.log(float(several)))
            log_weights = update(talk.log_weights, nats, rule.switch, uniform)[1]
        states, cache = grouped.step(config, weights, seats, jnp.repeat(token, several), talk.cache)
        said = said.at[:, at].set(jnp.where(talk.done, NONE, token))
        spoken = talk.spoken + (~talk.done).astype(jnp.int32)
        done = talk.done | (token == sampling.end)
        return at + 1, said, Talk(cache, states, log_weights, spoken, done)

    start = (jnp.int32(0), jnp.full((batch, CHUNK), NONE, jnp.int32), talk)
    _, said, talk = jax.lax.while_loop(going, one, start)
    return said, talk


def next_token(
    log_probs: Float[Array, "B V"], sampling: Sampling, number: Int[Array, " B"], rule: Rule
) -> Int[Array, " B"]:
    """The token that each text says next, its `number`-th.

    Of the allowed ids, with the temperature, the fewest and likeliest that have top_p of the
    probability together; equally likely ids stay together.
    """
    may = jnp.where(sampling.allowed[None], log_probs, -jnp.inf)
    if rule.greedy:
        return jnp.argmax(may, axis=-1).astype(jnp.int32)
    scaled = may / sampling.temperature
    if rule.nucleus:
        scaled = jnp.where(nucleus(jax.nn.softmax(scaled), sampling.top_p), scaled, -jnp.inf)
    keys = jax.vmap(jax.random.fold_in)(sampling.keys, number)
    return jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)


def nucleus(probs: Float[Array, "B V"], top_p: float | Float[Array, ""]) -> Bool[Array, "B V"]:
    """Which ids are among the likeliest that have `top_p` of the probability together.

    The bits of a float above 0 are in its order, so the least probability that stays is found by
    halving: 31 sums over the vocabulary, where sorting it takes several times as long on a GPU.
    """
    bits = jax.lax.bitcast_convert_type(probs.astype(jnp.float32), jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        mass = jnp.sum(jnp.where(bits >= middle[:, None], probs, 0), axis=-1)
        enough = mass >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    top = jnp.max(bits, axis=-1) + 1
    low, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(top), top))
    return bits >= low[:, None]
