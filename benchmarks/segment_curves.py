"""Draws "curves" of `benchmarks.segments`: F1 by the length of pieces, and the residual around a
switch by fixed windows and by spans (`cr_jax.studies.segment_curves`).

    python -m benchmarks.segment_curves results/segments.json     writes segments.png beside it
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import picture
from cr_jax.report.segments import smoothed


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the picture; the exit status."""
    says = "F1 by length, residual around a switch"
    return picture.drawn(says, "segments.json", "curves", "benchmarks.segments", draw, arguments)


def draw(plt: Any, record: Mapping[str, Any]) -> Any:
    """The figure, by matplotlib's pyplot."""
    found = record["curves"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, values in found["f1"].items():
        if name != "tokens":
            left.plot(found["f1"]["tokens"], values, marker="o", label=name)
    left.set(xscale="log", xlabel="tokens of a piece", ylabel="F1 within 8 tokens", ylim=(0, 1.02))
    tokens = found["f1"]["tokens"]
    left.set_xticks(tokens, [f"{x:g}" for x in tokens])
    left.minorticks_off()
    at = found["at_switch"]
    for name, values in at.items():
        if name != "token":
            right.plot(at["token"], _smooth(values), label=name)
    right.axvline(0, color="grey", linestyle="--", linewidth=1)
    right.set(xlabel="tokens after the switch", ylabel="nats/token", ylim=(0, None))
    for axis in (left, right):
        axis.legend(fontsize=8)
    return figure


def _smooth(values) -> np.ndarray:
    """Means of 5 tokens that do not reach across the switch."""
    half = len(values) // 2
    return np.concatenate([smoothed(np.array(x), 5) for x in (values[:half], values[half:])])


if __name__ == "__main__":
    sys.exit(main())
