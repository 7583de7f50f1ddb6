"""The router: which expert has the lowest residual on a text?  (Paper, routing rule.)  No gate.

tokens [B, L] -> every expert's residual [E, B] -> argmin; E experts, B windows, L tokens."""

from functools import partial

import jax
import numpy as np

from cr_jax.bank import ExpertBank
from cr_jax.config import SEEN
from cr_jax.data.windows import Windows
from cr_jax.routing import document, other_rule
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ranking import p_values, ranking_score
from cr_jax.routing.result import Route, WindowRoutes
from cr_jax.scoring import residuals
from cr_jax.scoring.batching import BatchSizes, checked, in_groups, looped, unmapped
from cr_jax.scoring.devices import scored

Source = document.Text | Windows


@partial(jax.jit, static_argnames=("scorer", "groups"))
def score_experts(scorer, params, tokens, mask, groups):
    """Runs a `residuals.Scorer` for all experts: params [E, ...] -> arrays [E, B, ...].  Pure.
    groups: (experts computed side by side, tokens of each whose logits are in memory)."""
    one_expert = lambda expert, its_mask: scorer(expert, tokens, its_mask, groups[1])
    experts = jax.vmap(one_expert) if groups[0] > 1 else unmapped(one_expert)
    return in_groups(experts, params, mask, groups[0])


def score_windows(model, params, tokens, mask, rule, sizes):
    """`WindowSums` of windows [B, L] by every expert; params [E, ...], of a bank its `weights`."""
    groups = sizes.groups(jax.tree.leaves(params)[0].shape[0])
    scorer = residuals.Scorer(residuals.window_sums, model, rule)
    return score_experts(scorer, params, tokens, mask, groups)


def score_bank(bank, windows, sizes=None, rule=None, rows=0, surprise=False):
    """`WindowSums` [E, B] of any number of windows, numpy.  rule: None, the bank's, or `SEEN`;
    rows: of one call, 0: chosen here; surprise: sum it too.  `UserError`: not this bank's."""
    sizes, rule = checked(bank, windows, sizes, rule)
    sums = residuals.surprise_sums if surprise else residuals.window_sums
    scorer = residuals.Scorer(sums, looped(bank.model), rule)
    weights = bank.params if rule == SEEN else bank.weights
    return scored(score_experts, scorer, weights, windows, sizes, rows)


def score_tokens(bank, windows, sizes=None, seen=True):
    """`TokenScores` [E, B, L]; padding holds anything.  seen=False: the residuals alone."""
    sizes, rule = checked(bank, windows, sizes)
    what = residuals.token_scores if seen else residuals.token_residuals
    scorer = residuals.Scorer(what, bank.model, rule)
    return scored(score_experts, scorer, bank.weights, windows, sizes)


def score(bank: ExpertBank, text: Source, sizes: BatchSizes | None = None) -> np.ndarray:
    """Nats of every token by every expert [E, B, L], NaN at padding; text, errors: see `route`."""
    windows = document.whole(bank, text)
    return np.where(windows.mask, score_tokens(bank, windows, sizes, False).residual, np.nan)


def route(
    bank: ExpertBank, text: Source, options: RouteOptions | None = None, sizes=None, on_block=None
) -> Route:
    """Sends one document to the expert with the lowest `ranking_score`.  text: a str, a path, an
    iterator of str, or Windows.  on_block: called per block.  `UserError`: empty text or bank."""
    options, sizes = options or RouteOptions(), sizes or BatchSizes.for_device()
    bank = other_rule.by_rule(bank, options.rule)
    with document.opened(bank, text, options, sizes) as blocks:
        return document.judge(bank, blocks, options, score_bank, sizes, on_block)


def route_windows(bank: ExpertBank, windows: Windows, sizes=None) -> WindowRoutes:
    """Routes each window by itself; it is unknown where p_values[expert, window] < alpha."""
    lengths = windows.mask.sum(-1)
    means = residuals.residual_means(score_bank(bank, windows, sizes).residual, lengths)
    ranked = residuals.lowest(ranking_score(bank, means, lengths))
    return WindowRoutes(means, ranked, p_values(bank, means, lengths))
