"""Trains readers of latents for experts of a bank (configs/latent_reader.py).

    python -m benchmarks.latent_reader --config configs/latent_reader.py:small --workdir runs/reader
    python -m benchmarks.latent_reader --config configs/latent_reader.py:twenty \\
        --bank runs/modular/bank --data-root DATA --workdir runs/reader \\
        --out results/latent_reader.json

Prints of each expert its loss on valid at the start, where an adapter changes nothing, and at its
best look.  `benchmarks.latent_memory --reader WORKDIR` measures what the adapters buy.  --out:

    experts     name -> {"start_nll", "best_nll", "best_step", "train_tokens"}; nats/token of
                windows that have a past
    parameters  of one adapter; seconds of steps, train_flops, past (windows that it reads)
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import results, settings_file
from cr_jax import config as settings
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.data.experiment_text import prepare
from cr_jax.errors import UserError
from cr_jax.modular import memory_reader_training as training
from cr_jax.training.workdir import locked

FILE = results.ROOT / "configs/latent_reader.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return results.answered("benchmarks.latent_reader", run, _parser().parse_args(argv), argv)


def run(args, command: str) -> dict[str, Any]:
    """Trains what is not trained yet; what --out holds."""
    folder = args.bank or str(pretrained.folder())
    bank = ExpertBank.load(folder, lms=False)
    e = experiment(args, folder, bank)
    with locked(args.workdir) as workdir:
        text = prepare(e, workdir, print, compare=False)
        found = training.train(e, bank, text, workdir, print)
    start = found.note["looks"][0]["experts"] if found.note["looks"] else {}
    experts = {
        name: {
            "start_nll": start[name]["valid_nll"],
            "best_nll": best["valid_nll"],
            "best_step": best["step"],
            "train_tokens": found.note["train_tokens"][name],
        }
        for name, best in found.note["best"].items()
    }
    for name, row in experts.items():
        print(f"{name}: {row['start_nll']:.4f} -> {row['best_nll']:.4f} nats/token on valid")
    loss = training.loss_of(e, bank, len(text.train))
    kept = ("parameters", "seconds", "steps", "train_flops")
    out = {
        "experts": experts,
        "past": loss.past,
        **{k: found.note[k] for k in kept},
        "provenance": {
            "command": command,
            "commit": results.commit(),
            "versions": results.versions(),
            "device": jax.devices()[0].device_kind,
        },
    }
    if args.out:
        results.write(args.out, json.dumps(out, indent=1) + "\n")
    return out


def experiment(args, folder: str, bank: ExpertBank) -> settings.Experiment:
    """The settings with the bank's tokenizer and form of text, and the domains of --experts."""
    config = settings_file.change(settings_file.load(args.config), args.set)
    config.tokenizer.folder = str(Path(folder).expanduser() / "tokenizer")
    config.data.text_form = bank.text_form
    if args.data_root:
        config.data.root = args.data_root
    config.model.window = config.modular.window  # of the windows of valid text
    raw = config.to_dict()
    if args.experts:
        if unknown := set(args.experts) - set(raw["data"]["domains"]):
            raise UserError(f"--experts: the config has no {', '.join(sorted(unknown))}")
        raw["data"]["domains"] = {n: raw["data"]["domains"][n] for n in args.experts}
    return settings.build(raw)


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--workdir", required=True, help="adapters, checkpoints and cached tokens")
    p.add_argument("--config", default=str(FILE), help="FILE or FILE:VARIANT")
    p.add_argument("--set", action="append", default=[], help="GROUP.FIELD=VALUE; repeatable")
    p.add_argument("--bank", default="", help="a bank with language models; by default the shipped")
    p.add_argument("--data-root", default="", help="replaces {root} in source specs")
    words = lambda text: tuple(x for x in text.split(",") if x)
    p.add_argument("--experts", type=words, default=(), help="of the config's domains; empty: all")
    p.add_argument("--out", default="", help="write the result as JSON")
    return p


if __name__ == "__main__":
    sys.exit(main())
