"""Several ways to train the branches, of which valid chooses one for each domain.

Not in the paper.
"""

import math
from collections.abc import Mapping
from typing import Any

from cr_jax.modular.training_stage import Finished


def chosen(tries: Mapping[str, Finished]) -> Finished:
    """Of each domain its branch of the try with the lowest loss on valid, at its best look.

    note: as of one stage, with "chosen" (domain -> try), "valid_nll" (try -> domain -> nats/token)
    and "search_tokens", what all tries have read.  Seconds are those of all tries.
    """
    losses = {t: {n: b["valid_nll"] for n, b in f.note["best"].items()} for t, f in tries.items()}
    first = next(iter(tries.values()))
    # A try that diverged has no number for its loss, which no comparison would pass over.
    finite = lambda loss: loss if math.isfinite(loss) else math.inf
    best = {n: min(tries, key=lambda t, n=n: finite(losses[t][n])) for n in first.params}
    tokens = {n: tries[t].note["train_tokens"][n] for n, t in best.items()}
    searched = sum(sum(f.note["train_tokens"].values()) for f in tries.values())
    each = first.note["train_flops"] / sum(first.note["train_tokens"].values())
    note = {
        "train_tokens": tokens,
        "train_flops": each * sum(tokens.values()),
        "search_tokens": searched,
        "chosen": best,
        "valid_nll": losses,
        "best": {n: tries[t].note["best"][n] for n, t in best.items()},
        "seconds": sum(f.note["seconds"] for f in tries.values()),
        "parameters": first.note["parameters"],
    }
    return Finished(first.lm, {n: tries[t].params[n] for n, t in best.items()}, note)


def named(note: Mapping[str, Any]) -> str:
    """ "TRY: domain, domain; TRY: domain" of the note that `chosen` makes."""
    by_try: dict[str, list[str]] = {}
    for name, one_try in note["chosen"].items():
        by_try.setdefault(one_try, []).append(name)
    return "; ".join(f"{t}: {', '.join(names)}" for t, names in by_try.items())
