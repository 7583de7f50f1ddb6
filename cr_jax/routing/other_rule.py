"""A bank that routes by another rule than its own: for comparing, not for knowing.

Its calibrations are of its own rule, so under another one no text has a p-value, and none is known
or unknown.  Not in the paper.
"""

import dataclasses

import numpy as np

from cr_jax.bank import ExpertBank
from cr_jax.config import SEEN, Scoring
from cr_jax.errors import UserError
from cr_jax.routing.options import Rule
from cr_jax.scoring.calibration import Calibration

RULES = {"rebuild": SEEN, "code_length": Scoring(predicted=True)}
# Windows as long as this calibrate nothing: every p-value is NaN.
UNCALIBRATED = Calibration({1 << 62: np.zeros(1)})


def by_rule(bank: ExpertBank, rule: Rule) -> ExpertBank:
    """The bank, ranking by a rule: "bank" its own; "rebuild" nats/token to rebuild a text, the
    paper's; "code_length" nats/token to predict it, without bigrams and penalties.

    `UserError` for "code_length" where the experts' encoders do not predict.
    """
    if rule == "bank" or RULES[rule] == bank.scoring:
        return bank
    if rule == "code_length" and not bank.model.predictive:
        raise UserError(
            "the bank's encoders do not predict (config.model.predictive), so texts "
            "have no code length: route by rebuild, or by the bank's own rule"
        )
    experts = tuple(
        dataclasses.replace(e, calibration=UNCALIBRATED, own_documents=None) for e in bank.experts
    )
    return bank.changed(experts=experts, scoring=RULES[rule], folder=None)
