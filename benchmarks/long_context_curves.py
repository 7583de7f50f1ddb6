"""The picture of `results/long_context.json`: speed and state by length, perplexity by state.

    python -m benchmarks.long_context_curves results/long_context.json   writes long_context.png

Left: tokens/s after N tokens of context.  Middle: MB of state, ids left out.  Right: perplexity
of test text in windows of `CONTEXT` tokens against the state after as many; all arms read
as many tokens of training.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cr_jax.errors import UserError, complain
from cr_jax.host.files import write_whole

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
    p = argparse.ArgumentParser(description="speed, state and perplexity of long contexts")
    p.add_argument("record", help="long_context.json")
    try:
        draw(Path(p.parse_args(arguments).record))
    except UserError as error:
        complain("error", error)
        return 2
    return 0


def draw(record: Path) -> Path:
    """RECORD.png; needs matplotlib.  `UserError` where the record has no speeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    try:
        found = json.loads(record.read_text())
        speed = found["speed"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{record} holds no speeds: benchmarks.speed.long_context") from error
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
    data, out = io.BytesIO(), record.with_suffix(".png")
    figure.savefig(data, format="png", dpi=140, metadata={"Software": None})
    plt.close(figure)
    return write_whole(out, data.getvalue())


if __name__ == "__main__":
    sys.exit(main())
