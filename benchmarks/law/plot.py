"""What a run measured against what its law says, as a picture.

    python -m benchmarks.law.plot results/law_gpu

Reads ablation.jsonl of the folder, writes law.png beside it.  The law is fitted as the run did it,
without the held-out settings.
"""

import argparse
import os
import sys
from pathlib import Path

from cr_jax.errors import UserError
from cr_jax.host.inside import draft_name
from cr_jax.studies.capacity import ablation, analysis, capacity, power_law

MARKS = {"": "o", "above": "^", "below": "v"}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", help="holds ablation.jsonl")
    a = p.parse_args(arguments)
    try:
        plot(Path(a.folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def plot(folder: Path, threshold: float = capacity.THRESHOLD) -> Path:
    """Draws FOLDER/law.png; needs matplotlib.  `UserError` when the law is undetermined, or
    its lines lack what a law is fitted on."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = analysis.load(folder / ablation.LINES)
    try:
        points = {
            held: capacity.capacities([r for r in rows if r["held_out"] == held], threshold)
            for held in (False, True)
        }
    except KeyError as error:
        raise UserError(
            f"{folder / ablation.LINES}: a line has no {error}; give the folder of "
            "benchmarks.law.run or of a run of configs/ablate_latents.py"
        ) from None
    law = power_law.fit(points[False])
    if law.verdict == "undetermined":
        raise UserError(f"{folder}: there is no law to draw: {law.reason}")
    domains = list(dict.fromkeys(p.setting["domain"] for p in (*points[False], *points[True])))
    # Ten colours that are told apart easily; of more, each its own.
    colours = dict(
        zip(
            domains,
            plt.cm.tab10.colors
            if len(domains) <= 10
            else plt.cm.turbo([i / len(domains) for i in range(len(domains))]),
        )
    )
    figure, axes = plt.subplots(figsize=(6.4, 5.2))
    for held, found in points.items():
        for p in found:
            said = power_law.predict(law, p.setting)
            bars = [[said["window"] - said["low"]], [said["high"] - said["window"]]]
            axes.errorbar(
                said["window"],
                p.window,
                xerr=bars if held else None,
                fmt=MARKS[p.censored],
                color=colours[p.setting["domain"]],
                lw=1,
                ms=9 if held else 5,
                mfc="white" if held else None,
            )
    ends = [f([p.window for found in points.values() for p in found]) for f in (min, max)]
    axes.plot(ends, ends, color="grey", lw=1, ls="--")
    for domain, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=domain)
    for mark, label in (
        ("o", "predicted before it was measured"),
        ("^", "at least"),
        ("v", "less than"),
    ):
        axes.plot([], [], mark, color="black", label=label, mfc="white" if mark == "o" else None)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="L* by the law, tokens",
        ylabel=f"L* measured (TRA >= {threshold:.0%}), tokens",
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    path = folder / "law.png"
    draft = path.with_name(draft_name(path.name))
    try:
        figure.savefig(draft, dpi=120, format="png")
        os.replace(draft, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; give a folder that you can write to"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
        plt.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main())
