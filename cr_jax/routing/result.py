"""What routing answers: one document's `Route`, the `WindowRoutes` of many windows.

Letters: E experts, B windows.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cr_jax.routing.content import BLANK, REPEATED

TOO_HIGH, TOO_LOW = "residual too high", "residual too low"
TOO_NEAR = "other experts too near"
SURPRISING = "surprise too high"
EXPERTS, BIGRAMS = "experts", "bigrams"  # who decided


class WindowRoutes(NamedTuple):
    """Every window routed on its own: residuals in nats/token, index of the winner, p-values.

    residuals are without a typicality penalty; the winner has the lowest `ranking.ranking_score`.
    expert: -1 where no token is scored, by the bank's rule or because the window is empty.
    """

    residuals: Float[np.ndarray, "E B"]
    expert: Int[np.ndarray, " B"]
    p_values: Float[np.ndarray, "E B"]


@dataclasses.dataclass(frozen=True)
class Route:
    """Where a document goes.  `expert` is None when it is unknown: no expert's own domain.

    reason: why it is unknown, empty where it is not: `TOO_HIGH`, `TOO_LOW` (more predictable than
    the nearest expert's own text), `TOO_NEAR` (other experts need little more than the nearest, as
    they do not on its own text), `SURPRISING` (the nearest expert's predictions are further off
    than they say, and than on its own text), or `content.BLANK` and `content.REPEATED`, where there
    is nothing to judge, whatever the p-value; none of them at alpha = 0.

    A text too short for any p-value is neither known nor unknown: `expert` is then the nearest,
    its p-value NaN and `known` None.
    residuals: nats/token, the mean over all tokens of all windows.
    p_values: how usual such a residual is in the expert's own domain, neither higher nor lower
    (`Calibration.document_p`, two-sided), and such a lead and such a surprise, where these were
    measured (`OwnDocuments.high_p`).  witnesses: the nearest expert's one-sided p-values of
    "residual", "margin" and "surprise" each by itself; empty where own documents were not measured.
    margin: second best minus best `ranking_score`, nats/token (infinite with one expert); nearest:
    the expert with the lowest `ranking_score`, known or not.  tra: share of tokens rebuilt exactly
    (token reconstruction accuracy, paper section 1) by the experts that `RouteOptions.tra` asked
    for: by default none.
    windows, tokens: that were scored; of_windows: of how many, None unless scoring was to stop
    early or a few windows stood for all (`routing.looks`), whose figures are then estimates.
    bigrams: None where all experts were scored; after a cascade the nats/token of every
    expert's bigram model, the cascade's offsets not taken off, and the other fields know only the
    experts that were scored in full.  decided_by: `EXPERTS`, or `BIGRAMS` where the bigram models
    were certain (`routing.screen`): residuals and p_values are then empty, margin is between bigram
    models, and the expert knows the text.  typicality_penalty: nats/token added to each residual
    before experts are ranked; empty where the bank's rule has none
    (`config.Scoring.typicality_weight`).
    """

    expert: str | None
    nearest: str
    margin: float
    residuals: dict[str, float]
    p_values: dict[str, float]
    windows: int
    tokens: int
    tra: dict[str, float] = dataclasses.field(default_factory=dict)
    bigrams: dict[str, float] | None = None
    of_windows: int | None = None
    typicality_penalty: dict[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ""
    decided_by: str = EXPERTS
    witnesses: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def nothing_to_judge(self) -> bool:
        """Whether the text is blank or repeats one thing: then it is unknown."""
        return self.reason in (BLANK, REPEATED)

    @property
    def ranking_score(self) -> dict[str, float]:
        """What experts are ranked by, nats/token: residuals plus their typicality penalty."""
        return {
            name: x + self.typicality_penalty.get(name, 0.0) for name, x in self.residuals.items()
        }

    @property
    def ranked(self) -> tuple[str, ...]:
        """The experts, nearest first; those without a finite residual come last.

        Of those that scored; where bigram models decided, by these.
        """
        score = self.ranking_score
        if self.decided_by == BIGRAMS:
            score = self.bigrams or {}

        def finite_first(name):
            return not math.isfinite(score[name]), score[name]

        return tuple(sorted(score, key=finite_first))

    @property
    def known(self) -> bool | None:
        """Whether the nearest expert's own text has such residuals; None: too short to judge."""
        if self.decided_by == BIGRAMS:
            return True
        return None if math.isnan(self.p_values[self.nearest]) else self.expert is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with `known`; an infinite margin and a p-value of NaN become null."""

        def finite(x):
            return x if not isinstance(x, float) or math.isfinite(x) else None

        raw = dataclasses.asdict(self) | {"known": self.known}
        return {
            key: {k: finite(v) for k, v in value.items()}
            if isinstance(value, dict)
            else finite(value)
            for key, value in raw.items()
        }
