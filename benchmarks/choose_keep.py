"""How many experts must a cascade score?  Measures it on validation text and stores the answer.

    python -m benchmarks.choose_keep --config configs/NAME.py[:VARIANT] --bank BANK

The config says where each expert's validation text is (`data.domains`); its model is not used.
Text is cut by the bank's tokenizer and window.  Offsets for the bigram models are fitted on all
windows; the least margin with which, of `--min-candidates` candidates at least, the exact winner is
one as often as `--at-least` says is measured with offsets that did not see the window (fitted on
every other one, both ways round).  Writes BANK/cascade.json, which `cr-jax route` reads, and prints
the margin, the offsets if they help, the agreement, and the candidates on average.
"""

import argparse
import dataclasses
import runpy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cr_jax import config
from cr_jax.bank import ExpertBank
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.config import DomainConfig, Experiment
from cr_jax.data import eval_windows, experiment_text, load_corpus
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing.cascade import AT_LEAST, MIN_CANDIDATES, Cascade
from cr_jax.scoring.batching import BatchSizes


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what was chosen; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", required=True, help="a config file, with :VARIANT where it has some"
    )
    parser.add_argument("--bank", required=True, help="whose experts have bigram models")
    parser.add_argument("--root", default="", help="replaces {root} in source specs")
    parser.add_argument("--windows", type=int, default=1000, help="of each expert, at most")
    parser.add_argument(
        "--at-least", type=float, default=AT_LEAST, help=f"agreement (default {AT_LEAST})"
    )
    parser.add_argument(
        "--min-candidates",
        type=int,
        default=MIN_CANDIDATES,
        help=f"experts at least (default {MIN_CANDIDATES})",
    )
    parser.add_argument(
        "--max-windows",
        type=int,
        default=0,
        help="of a document that bigram models read (default 0: all)",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--expert-chunk", type=int, default=4)
    args = parser.parse_args(argv)
    try:
        bank = ExpertBank.load(args.bank)
        experiment = experiment_of(args.config)
        root = args.root or experiment.data.root
        made = Cascade.fit(
            bank,
            validation(bank, experiment, root, args.windows),
            args.at_least,
            args.min_candidates,
            args.max_windows,
            BatchSizes(args.expert_chunk, args.batch),
        )
        made.save()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(said(made.fitted))
    print(f"{args.bank}/cascade.json")
    return 0


def said(fit: CandidateFit) -> str:
    """What was chosen and measured, in lines."""
    lines = [
        f"candidates {fit.min_candidates} experts at least",
        f"margin     {fit.candidate_margin:.3f} nats/token above the nearest bigram model",
        f"agreement  {fit.agreement:.4%} with exact routing ({fit.at_least:.4%} wanted)",
        f"           {fit.mean_candidates:.2f} experts on average",
        f"           ({fit.windows:,} validation windows)",
    ]
    if fit.offsets:
        lines += [
            "offsets    nats/token off each bigram model's residual",
            *(f"           {x:.3f} {name}" for name, x in fit.offsets.items() if x),
        ]
    return "\n".join(lines)


def experiment_of(name: str) -> Experiment:
    """`FILE.py[:VARIANT]` -> its settings."""
    file, _, variant = name.partition(":")
    if not Path(file).is_file():
        raise UserError(f"--config: there is no file {file}")
    get = runpy.run_path(file).get("get_config")
    if get is None:
        raise UserError(f"--config: {file} has no get_config")
    return config.build(get(variant) if variant else get())


def validation(
    bank: ExpertBank, experiment: Experiment, root: str, most: int
) -> dict[str, Windows]:
    """Full-size windows of each expert's valid split.  `UserError` for an expert without one."""
    domains: dict[str, DomainConfig] = dict(experiment.data.domains)
    missing = sorted(set(bank.names) - set(domains))
    if missing:
        raise UserError(
            f"the config has no domain for the experts {', '.join(missing)}: give the "
            "one that the bank was trained with"
        )
    with tempfile.TemporaryDirectory() as cache:
        found = {}
        for name in bank.names:
            specs = [
                experiment_text.weighted(s)[1].replace("{root}", root) for s in domains[name].valid
            ]
            corpus = load_corpus(specs, bank.tokenizer, Path(cache), None)
            cut = eval_windows(
                corpus,
                bank.model.window,
                limit=most,
                mode=experiment.data.mode,
                pad_id=bank.tokenizer.pad_id,
                seed=experiment.seed,
            )
            found[name] = dataclasses.replace(
                cut, tokens=cut.tokens.copy(), mask=cut.mask.copy()
            )  # the cache goes
    return found


if __name__ == "__main__":
    sys.exit(main())
