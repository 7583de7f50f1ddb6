"""Study `examples`: windows beside their reconstruction, with every token's confidence.

Not in the paper.  What a figure means is seen soonest on text that a person can read.
"""

from collections.abc import Mapping

import jax
import numpy as np

from cr_jax import models
from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.models import objective


def run(bank: ExpertBank, domains: Mapping[str, Windows], count: int) -> dict:
    """-> {"examples": [...]}: `count` windows per expert, the last one of a foreign domain.

    Each: expert, domain, tra (share), nll (nats/token) and per token piece, rebuilt, correct,
    confidence (probability of the rebuilt token), nll (nats).
    """
    net = models.Autoencoder(bank.model)

    @jax.jit
    def rebuild(params, tokens, mask):
        h, _ = net.apply(params, tokens, mask)
        return objective.token_scores(h, models.head(bank.model, params), tokens)

    names, examples = list(domains), []
    for e, expert in enumerate(bank.names):
        foreign = names[(names.index(expert) + 1 + e) % len(names)]
        foreign = foreign if foreign != expert else names[(names.index(expert) + 1) % len(names)]
        for domain in [expert] * (count - 1) + [foreign] * (count > 0):
            windows = domains[domain]
            at = (len(windows) // 2 + len(examples)) % len(windows)
            tokens, mask = windows.tokens[at : at + 1], windows.mask[at : at + 1]
            scores = jax.device_get(rebuild(bank.expert_params(expert), tokens, mask))
            examples.append(
                {
                    "expert": expert,
                    "domain": domain,
                    **_described(bank.tokenizer, tokens[0], mask[0], scores),
                }
            )
    return {"examples": examples}


def _described(tokenizer, tokens, mask, scores) -> dict:
    def pieces(ids):
        # The model's vocabulary is rounded up: an id past the tokenizer's stands for nothing.
        return tokenizer.pieces(np.minimum(ids[mask], tokenizer.vocab_size - 1))

    per_token = [x[0][mask] for x in (scores.correct, scores.confidence, scores.nll)]
    rows = zip(pieces(tokens), pieces(scores.predicted[0]), *per_token, strict=True)
    return {
        "tra": float(per_token[0].mean()),
        "nll": float(per_token[2].mean()),
        "tokens": [
            {
                "piece": piece,
                "rebuilt": rebuilt,
                "correct": bool(correct),
                "confidence": float(confidence),
                "nll": float(nll),
            }
            for piece, rebuilt, correct, confidence, nll in rows
        ],
    }
