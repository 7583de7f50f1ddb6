"""The picture of `results/long_context.json`: speed and state by length, perplexity by state.

    python -m benchmarks.long_context_curves results/long_context.json   writes long_context.png

Left: tokens/s after N tokens of context.  Middle: MB of state, ids left out.  Right: perplexity
of test text in windows of `CONTEXT` tokens against the state after as many; all arms read
as many tokens of training.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import picture

CONTEXT = "1024"  # tokens, of the perplexities
MB = 1e6
NAMES = {
    "static_kv": "static cache",
    "tlin": "TLinFormer",
    "tconst": "TConstFormer",
    "recurrent": "recurrent (ours)",
    "sliding": "sliding window",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the picture; the exit status."""
    says, by = "speed, state and perplexity of long contexts", "benchmarks.speed.long_context"
    return picture.drawn(says, "long_context.json", "speed", by, draw, arguments)


def draw(plt: Any, found: Mapping[str, Any]) -> Any:
    """The figure, by matplotlib's pyplot."""
    speed = found["speed"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    colours = {arm: f"C{i}" for i, arm in enumerate(NAMES)}
    for arm, name in NAMES.items():
        rows = sorted((int(n), row) for n, row in speed.get(arm, {}).items())
        lengths = [n for n, _ in rows]
        for axis, key, unit in ((left, "tokens_per_s", 1), (middle, "state_bytes", MB)):
            values = [row[key] / unit for _, row in rows]
            axis.plot(lengths, values, marker="o", color=colours[arm], label=name)
    left.set(xscale="log", yscale="log", xlabel="tokens of context", ylabel="tokens/s")
    middle.set(xscale="log", yscale="log", xlabel="tokens of context", ylabel="MB of state")
    left.legend(fontsize=8)
    for arm, by_context in found.get("perplexity", {}).items():
        timed = "static_kv" if arm == "plain" else arm
        if CONTEXT in by_context and CONTEXT in speed.get(timed, {}):
            at = speed[timed][CONTEXT]["state_bytes"] / MB, by_context[CONTEXT]
            right.scatter(*at, color=colours[timed])
            beside = dict(ha="center", textcoords="offset points", fontsize=8)
            right.annotate(NAMES[timed], at, (0, 7), **beside)
    right.set(xlabel=f"MB of state after {int(CONTEXT):,} tokens", ylabel="perplexity")
    right.margins(0.25)
    return figure


if __name__ == "__main__":
    sys.exit(main())
