"""Study `baselines`: what else routes text, on the same data and splits as the compressors.

Not in the paper.  One file per baseline, one interface (`interface`): a linear n-gram classifier,
n-gram likelihoods, two compressors, a frozen embedding with Gaussians, a learned gate and
language models of an expert's size; oracle and chance frame them.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from cr_jax.config import Experiment
from cr_jax.data.experiment_text import Corpora, sized
from cr_jax.errors import UserError
from cr_jax.studies.baselines import compression, embedding, gate, lm, naive_bayes, ngram, unknown
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText

# fit(TrainingText, lengths, Budget) -> Baseline, on the host.
ON_HOST: dict[str, Callable[..., Baseline]] = {
    "ngram": ngram.fit,
    "naive_bayes": naive_bayes.fit,
    "ppm": compression.fit_ppm,
    "zstd": compression.fit_zstd,
    "embedding": embedding.fit,
}
# fit(TrainingText, lengths, Budget, Experiment, ModelConfig) -> Baseline, on JAX's devices.
ON_DEVICE: dict[str, Callable[..., Baseline]] = {"gate": gate.fit, "lm": lm.fit}
FRAME = ("oracle", "chance")
NAMES = (*ON_HOST, *ON_DEVICE, *FRAME)
LENGTHS = (16, 32, 64, 128, 512)
USUAL = Budget()


def fit(
    name: str,
    corpora: Corpora,
    experiment: Experiment,
    lengths: Sequence[int] = LENGTHS,
    budget: Budget = USUAL,
) -> Baseline:
    """Fits one baseline on the training text of the experiment's domains.

    `UserError` for an unknown name or a length that does not fit into a window.
    """
    if name not in ON_HOST and name not in ON_DEVICE:
        raise UserError(f"no baseline '{name}' to fit; there are {', '.join(NAMES)}")
    _check(lengths, experiment.model.window)
    read = TrainingText(
        tuple(corpora.train),
        tuple(corpora.train.values()),
        corpora.tokenizer,
        experiment.model.window,
        experiment.data.mode,
        experiment.seed,
    )
    if name in ON_HOST:
        return ON_HOST[name](read, tuple(lengths), budget)
    model = sized(experiment.model, corpora.tokenizer)
    return ON_DEVICE[name](read, tuple(lengths), budget, experiment, model)


def run(
    corpora: Corpora,
    experiment: Experiment,
    lengths: Sequence[int] = LENGTHS,
    names: Sequence[str] = NAMES,
    budget: Budget = USUAL,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """-> {name: {"16": accuracy, ..., "per_domain", "confusion", "ood", "seconds", "note"}}.

    Accuracy is the mean over domains of the share of test windows whose first l tokens get the
    largest score (`studies.routing`).  "per_domain": {length: {domain: accuracy}}; "confusion":
    {domain: {domain: windows}} at the longest length.  "ood", per length and rule: AUROC and FPR95
    of each domain against the others with its own score dropped, mean over domains, and of `unseen`
    domains (those in test only); "refitted": True where dropping equals fitting without it.
    Nothing is tuned on test.  `UserError` as `fit` raises it.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"no baseline '{name}'; there are {', '.join(NAMES)}")
    lengths = tuple(sorted(lengths))
    _check(lengths, experiment.model.window)
    tables = {}
    for name in names:
        if name in FRAME:
            tables[name] = _frame(name, lengths, tuple(corpora.train))
            continue
        began = time.perf_counter()
        baseline = fit(name, corpora, experiment, lengths, budget)
        fitted = time.perf_counter()
        tables[name] = measure(baseline, corpora, lengths)
        tables[name]["seconds"] = {"fit": fitted - began, "score": time.perf_counter() - fitted}
        say(
            f"{name}: "
            + ", ".join(f"{k} {tables[name][str(k)]:.2%}" for k in lengths)
            + f" ({time.perf_counter() - began:.0f} s)"
        )
    return tables


def measure(
    baseline: Baseline, corpora: Corpora, lengths: Sequence[int], calibration: int = 128
) -> dict:
    """The figures of one fitted baseline on valid and test; see `run`.

    calibration: validation windows per domain that the rule `calibrated` reads.
    """
    names = tuple(corpora.train)
    ordered = {n: corpora.test[n] for n in (*names, *(n for n in corpora.test if n not in names))}
    test = _score(baseline, ordered, lengths)
    valid = _score(baseline, {n: corpora.valid[n].spread(calibration) for n in names}, lengths)
    out: dict = {"per_domain": {}, "ood": {"refitted": baseline.independent, "per_length": {}}}
    for k, length in enumerate(lengths):
        won = {n: test[n][k].argmax(0) for n in names}
        accuracy = {n: float(np.mean(won[n] == e)) for e, n in enumerate(names)}
        out[str(length)] = float(np.mean(list(accuracy.values())))
        out["per_domain"][str(length)] = accuracy
        own = np.stack([np.quantile(valid[n][k][e], [0.5, 0.05]) for e, n in enumerate(names)])
        counts = {n: np.minimum(w.mask.sum(1), length) for n, w in ordered.items()}
        told = unknown.leave_one_out({n: s[k] for n, s in test.items()}, counts, baseline.unit, own)
        out["ood"]["per_length"][str(length)] = {
            rule: {
                "auroc": _mean(cells, names, "auroc"),
                "fpr95": _mean(cells, names, "fpr95"),
                "per_domain": {n: c for n, c in cells.items() if n in names},
                "unseen": {n: c for n, c in cells.items() if n not in names},
            }
            for rule, cells in told.items()
        }
    out["confusion"] = {
        n: {m: int((won[n] == e).sum()) for e, m in enumerate(names)} for n in names
    }
    out["unit"], out["note"] = baseline.unit, baseline.note
    return out


def _score(baseline: Baseline, domains, lengths) -> dict[str, np.ndarray]:
    """Scores [K, E, N] of each domain's windows, all windows in one call."""
    tokens, mask = (
        np.concatenate([getattr(w, x) for w in domains.values()]) for x in ("tokens", "mask")
    )
    scores = baseline.predict(tokens, mask, lengths)
    cuts = np.cumsum([len(w) for w in domains.values()])[:-1]
    return dict(zip(domains, np.split(scores, cuts, axis=-1)))


def _mean(cells, names, figure: str) -> float | None:
    """Over the domains; None when there is but one, which cannot be left out."""
    values = [cells[n][figure] for n in names if n in cells]
    return float(np.mean(values)) if values else None


def _frame(name: str, lengths, domains) -> dict:
    """What needs no text: always right, and drawn at random."""
    share = 1.0 if name == "oracle" else 1 / len(domains)
    ood = {"auroc": 1.0, "fpr95": 0.0} if name == "oracle" else {"auroc": 0.5, "fpr95": 0.95}
    return {
        **{str(k): share for k in lengths},
        "per_domain": {str(k): dict.fromkeys(domains, share) for k in lengths},
        "ood": {"per_length": {str(k): {name: ood} for k in lengths}},
    }


def _check(lengths, window: int) -> None:
    if not lengths or min(lengths) < 1 or max(lengths) > window:
        raise UserError(
            f"baselines are scored at {', '.join(map(str, lengths)) or 'no'} tokens, "
            f"but a window has {window}; choose lengths from 1 to {window}"
        )
