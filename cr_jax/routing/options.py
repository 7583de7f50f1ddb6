"""What a caller can ask of a route: the same in the library and on the command line."""

import dataclasses
import math
from typing import Literal, get_args

from cr_jax.config.numbers import whole_number
from cr_jax.errors import UserError
from cr_jax.routing.early_stop import check_stop

Rule = Literal["bank", "rebuild", "code_length"]


@dataclasses.dataclass(frozen=True)
class RouteOptions:
    """How a document is judged.

    alpha: a text whose p-value is below this is unknown (Not in the paper: the paper says only that
    all residuals are then high).  max_windows: judge by the first so many windows and read no
    further; 0: by all.  stop: score no further once the winner is certain to so much
    (`routing.early_stop`; 0.99, say); 0: score all.  tra: whose share of tokens rebuilt exactly is
    measured: of none, of the nearest expert, or of all that were scored; the text is then read once
    more.  last_tokens: judge by the last so many tokens alone, encoded anew, which in a prompt is
    what is asked, whatever stands before it; 0: by all.  rule: by which experts are ranked
    (`routing.other_rule`), the bank's own or another, by which no text has a p-value; exact routing
    only.  `UserError` for what cannot be.
    """

    alpha: float = 0.05
    max_windows: int = 0
    stop: float = 0.0
    tra: Literal["none", "nearest", "all"] = "none"
    rule: Rule = "bank"
    last_tokens: int = 0

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha is a share and must lie in [0, 1], got {self.alpha}")
        if not whole_number(self.max_windows) or self.max_windows < 0:
            raise UserError(f"max_windows={self.max_windows!r} of a text: give 0 for all, or more")
        check_stop(self.stop)
        if not whole_number(self.last_tokens) or self.last_tokens < 0:
            raise UserError(f"last_tokens={self.last_tokens!r} of a text: give 0 for all, or more")
        if self.last_tokens and (self.max_windows or self.stop):
            raise UserError(
                "last_tokens is about the end of a text: leave out max_windows and stop, which are "
                "about its beginning"
            )
        if self.rule not in get_args(Rule):
            raise UserError(f"rule={self.rule!r}: rank by 'bank', 'rebuild' or 'code_length'")
        if self.tra not in ("none", "nearest", "all"):
            raise UserError(f"tra={self.tra!r}: measure it for 'none', 'nearest' or 'all' experts")


@dataclasses.dataclass(frozen=True)
class SegmentOptions:
    """How a text is cut.

    switch: nats that a change of expert costs; minimum: tokens of a span at least; alpha: a span
    whose p-value is below it is unknown; evidence: what prices tokens, the experts by the bank's
    rule or their bigram models alone (much faster); reset: score windows near a switch once more
    from half a window later on, and take each token's lower cost: after a switch a window is of no
    use to the right expert until it begins anew.  delay: a switch is settled once so many more
    tokens were read.
    `UserError` for what cannot be.
    """

    switch: float = 30.0
    minimum: int = 32
    alpha: float = 0.05
    evidence: Literal["experts", "bigrams"] = "experts"
    reset: bool = True
    delay: int = 2048

    def __post_init__(self):
        if not (math.isfinite(self.switch) and self.switch >= 0):
            raise UserError(f"switch is a cost in nats, 0 or more; got {self.switch}")
        if not 1 <= self.minimum <= 512:
            raise UserError(f"minimum must lie in [1, 512] tokens, got {self.minimum}")
        if self.delay < 2 * self.minimum:
            raise UserError(f"delay must be at least twice the minimum, got {self.delay}")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha is a share and must lie in [0, 1], got {self.alpha}")
        if self.evidence not in ("experts", "bigrams"):
            raise UserError(f"evidence is experts or bigrams, not {self.evidence!r}")
