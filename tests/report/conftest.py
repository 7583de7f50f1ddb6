"""A made-up report with every section, for the tests of the page."""

import math

import numpy as np
import pytest

EXPERTS = ("python", "english", "german", "statutes")
DOMAINS = (*EXPERTS, "recipes", "random_tokens")
# Pieces are parted by "|"; "/" is a new line.
CODE = (
    "def| mean|(|values|)|:|/|    |if| not| values|:|/|        |return| 0|.|0|/|    |return"
    "| sum|(|values|)| -| len|(|values|)|/|/|def| main|(|)|:|/|    |print|(|mean|([|1|,| 2|]))|/"
)
PROSE = "The| ship| lay| quiet| under| the| hill|,| and| no|body| spoke| for| a| while|.|/|The|"


def fake_report(
    experts=EXPERTS, domains=DOMAINS, seed=0, windows=150, bins=90, components=1024
) -> dict:
    """A report with all sections and plausible numbers; experts first among the domains."""
    rng = np.random.default_rng(seed)
    mean = {
        e: {
            d: float(rng.uniform(0.3, 0.9))
            if d == e
            else (5.6 if d == "random_tokens" else float(rng.uniform(2.0, 5.0)))
            for d in domains
        }
        for e in experts
    }

    def cell(nll: float, domain: str) -> dict:
        tra = math.exp(-nll * 0.25) if domain != "random_tokens" else 0.03
        return {
            "tra": tra,
            "nll": nll,
            "bits_per_byte": math.nan if domain == "random_tokens" else nll * 0.48,
            "majority_tra": 0.06 if domain != "random_tokens" else 0.0012,
            "window_exact": 0.4 if nll < 1 else 0.0,
            "windows": 512,
            "tokens": 32768,
        }

    def histogram(nll: float) -> dict:
        sample = rng.gamma(24.0, nll / 24.0, 512)
        counts, edges = np.histogram(sample, bins=np.linspace(0, 9, bins + 1))
        return {"edges": edges.tolist(), "counts": counts.tolist()}

    centres = rng.normal(0, 18, (len(domains), 2))
    points = np.concatenate([rng.normal(c, 3.2, (windows, 2)) for c in centres]).round(3)
    steps = list(range(0, 1001, max(10, 1500 // windows)))

    def tokens(text: str, error: float) -> list[dict]:
        pieces = [p.replace("/", "\n") for p in text.split("|")]
        out = []
        for piece in pieces:
            correct = bool(rng.random() > error)
            sure = float(rng.beta(9, 1) if correct else rng.beta(2, 3))
            rebuilt = piece if correct else str(rng.choice(pieces))
            out.append(
                {
                    "piece": piece,
                    "rebuilt": rebuilt,
                    "correct": rebuilt == piece,
                    "confidence": sure,
                    "nll": -math.log(max(sure if correct else 1 - sure, 1e-4)),
                }
            )
        return out

    def arm(beside: float, bound: bool = False) -> dict:
        return {
            "ppl": {e: beside * (40 + 9 * i + float(rng.normal())) for i, e in enumerate(experts)},
            "bits_per_byte": {e: 1.5 + math.log(beside) for e in experts},
            "active_params": None if bound else 600_000,
            "total_params": None if bound else 600_000 * len(experts),
            "bound": bound,
        }

    def spoken(text: str) -> list[dict]:
        pieces = [p.replace("/", "\n") for p in text.split("|")]
        half = len(pieces) // 2
        who = ["seed"] * 4 + [experts[0]] * half + [experts[1]] * len(pieces)
        of = [experts[0]] * half + [experts[1]] * len(pieces)
        return [
            {"piece": p, "expert": w, "label": o, "nats": float(rng.gamma(2.0))}
            for p, w, o in zip(pieces, who, of)
        ]

    confusion = {
        t: {r: 500 if r == t else int(rng.integers(0, 7)) for r in experts} for t in experts
    }
    accuracy = {t: row[t] / sum(row.values()) for t, row in confusion.items()}
    foreign = [d for d in domains if d not in experts]
    return {
        "name": "quickstart: four small experts",
        "summary": {
            "experts": len(experts),
            "parameters": 912_640,
            "window": 64,
            "latents": 8,
            "d_model": 128,
            "d_latent": 128,
            "vocab_size": 2048,
            "bottleneck": "fold",
            "ratio": 8.0,
        },
        "fingerprint": {e: {d: cell(mean[e][d], d) for d in domains} for e in experts},
        "routing": {
            "accuracy": float(np.mean(list(accuracy.values()))),
            "accuracy_tra": 0.957,
            "chance": 1 / len(experts),
            "per_domain": accuracy,
            "confusion": confusion,
            "windows": sum(sum(row.values()) for row in confusion.values()),
            "rule": "argmin nats/token",
        },
        "ood": {
            "auroc_unseen_domain": 0.981,
            "auroc_random": 1.0,
            "per_domain": {
                d: {"auroc": 0.99, "fpr95": 0.04, "rejected_at_alpha": 0.9} for d in foreign
            },
            "false_alarm": 0.048,
            "alpha": 0.05,
        },
        "residuals": {e: {d: histogram(mean[e][d]) for d in domains} for e in experts},
        "geometry": {
            "points": points.tolist(),
            "labels": [d for d in domains for _ in range(windows)],
            "explained_variance": {
                e: (1 - np.exp(-np.arange(1, components + 1) / (70 + 25 * i))).tolist()
                for i, e in enumerate(experts)
            },
            "components_95": {e: 210 + 75 * i for i, e in enumerate(experts)},
            "d_latent_total": 1024,
            "linear_probe_accuracy": 0.993,
            "method": "t-SNE",
        },
        "modular": {
            "settings": {"main_prefix": 64},
            "prefix": {
                "64": {
                    "after": {
                        "dense": arm(1.0),
                        "top1": arm(0.82),
                        "seed": arm(1.09),
                        "label_encoder": arm(4.0),
                        "oracle_window": arm(0.8, True),
                    }
                }
            },
        },
        "modular_document": {
            "every": 8,
            "memory": 32,
            "label_share": 0.87,
            "windows": [spoken(CODE), spoken(PROSE)],
        },
        "sections": {
            "modular": {
                "title": "Language models, scheduled by compression",
                "head": ["who speaks", "bits/byte"],
                "rows": [["top1", "1.302"], ["dense", "1.500"]],
                "read": "Each row is who predicts.",
                "false_if": "dense is first.",
            }
        },
        "curves": {
            e: {
                "step": steps,
                "nll": [7.6 * math.exp(-s / (150 + 60 * i)) + 0.4 for s in steps],
                "tra": [0.93 * (1 - math.exp(-s / (220 + 60 * i))) + 0.05 for s in steps],
            }
            for i, e in enumerate(experts)
        },
        "examples": [
            {"expert": e, "domain": d, "tokens": tokens(text, p), "tra": 1 - p, "nll": 0.5 + 5 * p}
            for e, d, text, p in (
                ("python", "python", CODE, 0.08),
                ("english", "python", CODE, 0.6),
                ("english", "english", PROSE, 0.0),
                ("python", "english", PROSE, 0.5),
            )
        ],
        "seconds": {"tokenizer": 6.4, "training": 214.9, "evaluation": 18.2, "report": 0.4},
        "provenance": {
            "commit": "0123abcd",
            "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8"},
            "devices": ["TFRT_CPU_0"],
            "config": {"model": {"window": 64, "latents": 8}, "train": {"steps": 1000}},
            "command": "python main.py --config=configs/quickstart.py --workdir=runs/quickstart",
        },
    }


@pytest.fixture(scope="session")
def make_report():
    """The function `fake_report(experts, domains, seed)`."""
    return fake_report
