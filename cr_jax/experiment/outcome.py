"""What a run says of itself: what no study puts in report.json, and the lines at its end."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cr_jax import models
from cr_jax.config import Experiment, ModelConfig
from cr_jax.training.loop import Trained
from cr_jax.training.metric_writer import read_metrics
from cr_jax.training.validation import seconds_to


def summary(model: ModelConfig, names: Sequence[str]) -> dict:
    """What was trained, in numbers."""
    return {
        "experts": len(names),
        "parameters": models.count_parameters(model),
        "ratio": model.window / model.latents,
        **{
            k: v
            for k, v in dataclasses.asdict(model).items()
            if k in ("window", "latents", "d_model", "d_latent", "vocab_size", "bottleneck")
        },
    }


def parameter_table(model: ModelConfig) -> str:
    """Name, shape, type and size of one expert's parameters, without allocating any."""
    from clu import parameter_overview

    shapes = jax.eval_shape(lambda key: models.init(model, key), jax.random.key(0))
    return parameter_overview.get_parameter_overview(shapes, include_stats=False) + "\n"


def curves(folder: Path, names: Sequence[str], looks: Sequence[Mapping[str, Any]]) -> dict:
    """Of each expert: training's figures at every logged step, valid's at every look."""
    curves_of: dict[str, dict[str, list]] = {n: {"step": [], "nll": [], "tra": []} for n in names}
    for line in read_metrics(folder / "metrics.jsonl"):
        if line.keys() >= {"nll", "tra"}:
            for key, values in curves_of.get(line["expert"], {}).items():
                values.append(line[key])
    for look in looks:
        for name, figures in look["experts"].items():
            if name not in curves_of:
                continue
            for key, value in {
                "valid_step": look["step"],
                "valid_seconds": look["seconds"],
                **figures,
            }.items():
                curves_of[name].setdefault(key, []).append(value)
    return curves_of


def training(experiment: Experiment, trained: Trained) -> dict:
    """Where the time went, and what valid said on the way."""
    facts = {
        "steps": trained.step,
        "tokens_per_expert": trained.tokens,
        "seconds": trained.seconds,
        "seconds_by_phase": trained.phases,
    }
    if trained.best:
        weight = experiment.train.predict_weight
        rule = (
            "valid nll"
            + (f" + {weight:g} x predicted nll" if experiment.model.predictive else "")
            + ", nats/token, mean over the experts"
        )
        facts["best"] = {
            "step": trained.best["step"],
            "loss": trained.best["loss"],
            "loss_is": rule,
            "kept": experiment.eval.keep_best,
            "last_loss": trained.looks[-1]["loss"],
        }
    if target := experiment.eval.target_tra:
        facts |= {"target_tra": target, "seconds_to_target": seconds_to(trained.looks, target)}
    return facts


def tell(report: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """The lines at the end of a run."""
    table = report.get("fingerprint", {})
    for expert, row in table.items():
        own = row[expert]
        others = min((cell["nll"], domain) for domain, cell in row.items() if domain != expert)
        say(
            f"  {expert:12} TRA {own['tra']:.1%} at home (majority token {own['majority_tra']:.1%})"
            f", {own['nll']:.2f} nats/token; nearest other text: {others[1]} {others[0]:.2f}"
        )
    training = report["training"]
    if best := training.get("best"):
        say(
            f"  best step on valid: {best['step']:,} of {training['steps']:,} (loss "
            f"{best['loss']:.4f}, at the end {best['last_loss']:.4f})"
            + (", its checkpoint is kept" if best["kept"] else "")
        )
    for expert, reached in training.get("seconds_to_target", {}).items():
        when = "not reached" if reached is None else f"after {reached:.1f} s of steps"
        say(f"  {expert:12} TRA {training['target_tra']:.2%} of valid: {when}")
    if "routing" in report:
        ood = report["ood"]
        figures = report["routing"]
        say(
            f"  routing: the bank's rule sends {figures['accuracy']:.2%} of {figures['windows']:,} "
            f"windows home (chance {figures['chance']:.0%}), rebuilding alone (the paper's rule) "
            f"{figures['accuracy_rebuild']:.2%}; {figures['rule']}"
        )
        for domain, cell in ood["per_domain"].items():
            say(
                f"  unknown text {domain}: AUROC {cell['auroc']:.3f}, refused "
                f"{cell['rejected_at_alpha']:.0%}; by rebuilding alone AUROC "
                f"{cell['auroc_rebuild']:.3f}"
            )
    say("  seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in report["seconds"].items()))
