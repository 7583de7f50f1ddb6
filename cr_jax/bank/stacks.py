"""What a bank makes of all its experts when it is first asked for: arrays with an axis E."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from cr_jax.bank.expert import Expert
from cr_jax.errors import UserError

if TYPE_CHECKING:
    from cr_jax.bank.bank import ExpertBank

# Cached property of a bank -> what of an expert it is made of.
_PARTS: Mapping[str, Callable[[Expert], Any]] = {
    "params": lambda expert: expert.params,
    "bigram_table": lambda expert: expert.bigram,
    "lm_params": lambda expert: expert.lm,
}


def keep(old: "ExpertBank", new: "ExpertBank") -> "ExpertBank":
    """The new bank, with the old one's stacks where they are of the same parts."""
    for stack, part in _PARTS.items():
        before, after = (list(map(part, bank.experts)) for bank in (old, new))
        same = len(before) == len(after) and all(map(lambda a, b: a is b, before, after))
        if same and stack in vars(old):
            vars(new)[stack] = vars(old)[stack]
    return new


def placed(bank: "ExpertBank", place: Callable[[Any], Any]) -> "ExpertBank":
    """The bank with its parameters [E, ...] where `place` puts them: they go there from the host,
    and never lie whole on one device."""
    found = bank.changed()
    on_host = jax.tree.map(lambda *rows: np.stack(rows), *(e.params for e in bank.experts))
    vars(found)["params"] = place(on_host)
    return found


def selected(bank: "ExpertBank", rows: Int[np.ndarray, " K"]) -> "ExpertBank":
    """`bank.select` by place, without a way through the host's memory."""
    weights = _pick(bank.weights, np.asarray(rows, np.int32))
    found = bank.changed(experts=tuple(bank.experts[e] for e in rows), folder=None)
    vars(found)["params"] = {k: weights[k] for k in bank.params}
    vars(found)["weights"] = weights  # not made anew from the bigram models
    return found


@jax.jit
def _pick(params: Any, rows: Any) -> Any:
    # The rows are data: any selection of as many experts is one program.
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), params)


def check_bigrams(bank: "ExpertBank") -> None:
    """`UserError` unless every expert has a bigram model."""
    lacking = [n for n in bank.names if n not in bank.bigrams]
    if lacking:
        raise UserError(
            f"no bigram model for {', '.join(lacking)}: experts have one if they were "
            "trained by this version; or store them again with "
            "`Expert(..., bigram=cr_jax.scoring.bigram.count(...))`"
        )


def check_lms(bank: "ExpertBank") -> None:
    """`UserError` unless every expert has a language model."""
    lacking = [e.name for e in bank.experts if e.lm is None]
    if lacking:
        raise UserError(
            f"no language model for {', '.join(lacking)}: store them with "
            "cr_jax.bank.store_lms, and load the bank with lms=True"
        )
