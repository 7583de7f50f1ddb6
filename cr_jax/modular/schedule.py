"""Which expert's language model speaks at each token, decided from the tokens before it alone.

    evidence [E, B, L] -> by_prefix, by_past, by_posterior -> Schedule -> spoken -> nats [B, L]
    nll [E, B, L] -> mixture -> nats [B, L], weights [E, B, L]

Evidence is nats of each token by whatever decides: the language models themselves, the compressors'
code length (not their rebuilding, which sees later tokens), or bigram models.  The first tokens are
spoken by the seed, of which all experts are branches.  No text chooses the expert that it is scored
by: an entry of a decision at token t reads evidence of tokens before t only.  All functions are
pure and jitted.  Not in the paper; as in SmallTalk LM (arXiv 2410.03529: top-1 by a prefix) and
Branch-Train-Merge (arXiv 2208.03306: posterior mixtures); the switching prior is fixed share
(Herbster and Warmuth 1998).
Letters: E experts, B texts, L tokens of a text, V vocabulary.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cr_jax.errors import UserError

SEED = -1  # the place of the seed in a schedule


class Schedule(NamedTuple):
    """Who speaks at each token: an expert's place, or `SEED`.

    unknown: True where the seed speaks because no expert knows the text.
    """

    expert: Int[Array, "B L"]
    unknown: Bool[Array, "B L"]


class Mixture(NamedTuple):
    """nats of each token by the mixture, 0 at padding, and the experts' weights before it, which
    sum to 1."""

    nats: Float[Array, "B L"]
    weights: Float[Array, "E B L"]


@functools.partial(jax.jit, static_argnames="tokens")
def by_prefix(
    evidence: Float[Array, "E B L"], mask: Bool[Array, "B L"], tokens: int, fallback: Any = SEED
) -> Schedule:
    """The expert with the fewest nats on the first `tokens` speaks after them.

    mask: True on tokens whose evidence counts.  fallback: who speaks until then, a place or one of
    each text [B].  An expert with evidence that is not finite is not chosen; where all have such,
    the seed is.  `UserError` unless `tokens` is at least 1.
    """
    winner = _nearest(prefix_nats(evidence, mask, tokens))
    first = _first(mask, tokens)
    return _schedule(jnp.where(first, _column(fallback, mask), winner[:, None]))


@functools.partial(jax.jit, static_argnames=("every", "memory"))
def by_past(
    evidence: Float[Array, "E B L"],
    mask: Bool[Array, "B L"],
    every: int,
    memory: int = 0,
    fallback: Any = SEED,
) -> Schedule:
    """As `by_prefix`, decided again at every multiple of `every`, by all tokens before it.

    memory: by the last so many of them only; 0: all.  `UserError` unless `every` is at least 1.
    """
    past = past_nats(evidence, mask, memory)[..., :: _at_least_1("every", every)]
    winner = jnp.repeat(_nearest(past), every, axis=1)[:, : mask.shape[1]]
    return _schedule(jnp.where(_first(mask, every), _column(fallback, mask), winner))


@functools.partial(jax.jit, static_argnames="every")
def by_posterior(
    evidence: Float[Array, "E B L"],
    mask: Bool[Array, "B L"],
    every: int,
    switch: Any = 0.01,
    fallback: Any = SEED,
) -> Schedule:
    """As `by_past`, by the posterior with a switching prior, which forgets what lies far back.

    Who has the largest weight in `mixture` speaks.  `UserError` unless `every` is at least 1.
    """
    told = jnp.pad(jnp.isfinite(evidence) & mask[None], ((0, 0), (0, 0), (1, 0)))[..., :-1]
    told = jnp.cumsum(told, axis=-1, dtype=jnp.int32) > 0  # has any evidence before the token
    weights = mixture(evidence, mask, switch=switch).weights
    ranked = jnp.where(told, -weights, jnp.inf)[..., :: _at_least_1("every", every)]
    winner = _nearest(ranked)
    winner = jnp.repeat(winner, every, axis=1)[:, : mask.shape[1]]
    return _schedule(jnp.where(_first(mask, every), _column(fallback, mask), winner))


@jax.jit
def with_unknown(schedule: Schedule, unknown: Bool[Array, " B"] | Bool[Array, "B L"]) -> Schedule:
    """The seed speaks where `unknown` is True, and the schedule says so.

    unknown: of whole texts, or of each token where it becomes known on the way.  What it is decided
    by is the caller's: of tokens that are scored it must not come.
    """
    unknown = jnp.broadcast_to(
        unknown[:, None] if unknown.ndim == 1 else unknown, schedule.expert.shape
    )
    return Schedule(jnp.where(unknown, SEED, schedule.expert), schedule.unknown | unknown)


@jax.jit
def spoken(
    schedule: Schedule, nll: Float[Array, "E B L"], seed: Float[Array, "B L"] | None = None
) -> Float[Array, "B L"]:
    """nats of each token by the model that speaks; NaN where that is the seed and none is given."""
    at = jnp.maximum(schedule.expert, 0)
    chosen = jnp.take_along_axis(nll, at[None], axis=0)[0]
    other = jnp.full_like(chosen, jnp.nan) if seed is None else seed
    return jnp.where(schedule.expert == SEED, other, chosen)


@functools.partial(jax.jit, static_argnames=("keep", "tokens"))
def best_by_prefix(
    evidence: Float[Array, "E B L"], mask: Bool[Array, "B L"], keep: int, tokens: int
) -> Bool[Array, "E B L"]:
    """Who may speak: all in the first `tokens`, then the `keep` with the fewest nats on them."""
    best = nearest(prefix_nats(evidence, mask, tokens), keep)
    return _first(mask, tokens)[None] | best[..., None]


@functools.partial(jax.jit, static_argnames=("keep", "every", "memory"))
def best_by_past(
    evidence: Float[Array, "E B L"],
    mask: Bool[Array, "B L"],
    keep: int,
    every: int,
    memory: int = 0,
) -> Bool[Array, "E B L"]:
    """As `best_by_prefix`, decided again at every multiple of `every`, as `by_past` decides."""
    past = past_nats(evidence, mask, memory)[..., :: _at_least_1("every", every)]
    best = jnp.repeat(nearest(past, keep), every, axis=2)
    return _first(mask, every)[None] | best[..., : mask.shape[1]]


@jax.jit
def mixture(
    nll: Float[Array, "E B L"],
    mask: Bool[Array, "B L"],
    prior: Float[Array, " E"] | None = None,
    switch: Any = 0.01,
    allowed: Bool[Array, "E B L"] | None = None,
) -> Mixture:
    """The posterior mixture of the experts' predictions, whose weights may move at every token.

    weights before the first token are `prior` (None: all alike); before the next they are
    (1 - switch) posterior + switch prior.  switch 0 is Bayes' rule, which soon keeps one expert.
    allowed: who may speak at each token, as `best_by_prefix` says; weights are then shared among
    these, and the nats of the others are not read.
    """
    start = jnp.full(len(nll), 1.0) if prior is None else prior.astype(jnp.float32)
    log_prior = jnp.log(start) - jnp.log(jnp.sum(start))

    def step(log_weights, now):
        nats, real, may = now
        spoken_by = log_weights if may is None else _among(log_weights, may)
        said, after = update(spoken_by, nats, switch, log_prior)
        kept = jnp.where(real[:, None], after, log_weights)
        return kept, (jnp.where(real, said, 0), jnp.exp(spoken_by))

    first = jnp.broadcast_to(log_prior, (nll.shape[1], len(nll)))
    by_token = lambda x: jnp.transpose(x, (2, 1, 0))
    given = (by_token(nll), mask.T, None if allowed is None else by_token(allowed))
    _, (nats, weights) = jax.lax.scan(step, first, given)
    return Mixture(nats.T, by_token(weights))


def update(
    log_weights: Float[Array, "B E"],
    nll: Float[Array, "B E"],
    switch: Any,
    log_prior: Float[Array, " E"],
) -> tuple[Float[Array, " B"], Float[Array, "B E"]]:
    """One token: (its nats by the mixture, the log weights before the next one).

    An expert whose nll is not a number counts as one that gave the token no probability; a token
    that no expert gave any leaves the weights as they are.
    """
    joint = log_weights - jnp.where(jnp.isnan(nll), jnp.inf, nll)
    total = jax.nn.logsumexp(joint, axis=-1)
    known = jnp.isfinite(total)[:, None]
    posterior = jnp.where(known, joint - jnp.where(known, total[:, None], 0), log_weights)
    switch = jnp.asarray(switch, jnp.float32)
    moved = jnp.log(switch) + log_prior
    return -total, jnp.logaddexp(jnp.log1p(-switch) + posterior, moved[None])


@jax.jit
def mix_log_probs(
    weights: Float[Array, "B E"], log_probs: Float[Array, "B E V"]
) -> Float[Array, "B V"]:
    """Log-probabilities of every next token by the mixture; they sum to 1 as those given do.

    weights: sum to 1, as `mixture` has them.
    """
    return jax.nn.logsumexp(jnp.log(weights)[..., None] + log_probs.astype(jnp.float32), axis=1)


@functools.partial(jax.jit, static_argnames="tokens")
def prefix_nats(
    evidence: Float[Array, "E B L"], mask: Bool[Array, "B L"], tokens: int
) -> Float[Array, "E B"]:
    """nats of the first `tokens`; infinite where one of them has none."""
    first = _first(mask, _at_least_1("tokens", tokens))
    return jnp.sum(_usable(evidence, mask & first), axis=-1)


@functools.partial(jax.jit, static_argnames="memory")
def past_nats(
    evidence: Float[Array, "E B L"], mask: Bool[Array, "B L"], memory: int = 0
) -> Float[Array, "E B L"]:
    """nats of the tokens before each one: of all of them, or of the last `memory`."""
    if memory < 0:
        raise UserError(f"memory={memory} must be a number of tokens, or 0 for all of them")
    before = jnp.pad(_usable(evidence, mask), ((0, 0), (0, 0), (1, 0)))
    total = jnp.cumsum(before, axis=-1)[..., :-1]
    if not 0 < memory < mask.shape[1]:
        return total
    recent = total - jnp.pad(total, ((0, 0), (0, 0), (memory, 0)))[..., :-memory]
    return jnp.where(jnp.isnan(recent), jnp.inf, recent)  # of an expert that is not to be chosen


def nearest(nats: Float[Array, "E ..."], keep: int) -> Bool[Array, "E ..."]:
    """Whether each is among the `keep` fewest along the first axis, and finite.  `UserError` unless
    `keep` is at least 1."""
    rank = jnp.argsort(jnp.argsort(nats, axis=0, stable=True), axis=0)
    return (rank < _at_least_1("keep", keep)) & jnp.isfinite(nats)


def _usable(evidence, mask):
    """0 where the mask is False, which may hold anything; infinite where it is not a number."""
    return jnp.where(mask[None], jnp.where(jnp.isnan(evidence), jnp.inf, evidence), 0)


def _nearest(nats):
    """Place of the fewest nats along the first axis, the first of equal ones; SEED where none is
    finite."""
    finite = jnp.isfinite(nats)
    place = jnp.argmin(jnp.where(finite, nats, jnp.inf), axis=0).astype(jnp.int32)
    return jnp.where(jnp.any(finite, axis=0), place, SEED)


def _among(log_weights, may):
    """Log weights [B, E] shared among those who may speak; unchanged where nobody may."""
    left = jnp.where(may, log_weights, -jnp.inf)
    total = jax.nn.logsumexp(left, axis=-1, keepdims=True)
    return jnp.where(
        jnp.isfinite(total), left - jnp.where(jnp.isfinite(total), total, 0), log_weights
    )


def _first(mask, tokens: int):
    return jnp.broadcast_to(jnp.arange(mask.shape[1])[None] < tokens, mask.shape)


def _column(fallback, mask):
    place = jnp.asarray(fallback, jnp.int32)
    return jnp.broadcast_to(place.reshape(-1, 1), mask.shape)


def _schedule(expert):
    return Schedule(expert.astype(jnp.int32), jnp.zeros(expert.shape, bool))


def _at_least_1(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{name}={value} must be at least 1")
    return value
