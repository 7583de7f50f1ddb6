"""A rule of scoring in words: the same ones in the report, in explanations and on a terminal."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cr_jax.config.schema import Scoring


class Wording(NamedTuple):
    """verb, done and what: "rebuilds", "rebuilt", "it"; cost: what the residual counts, with its
    unit; formula: the same in symbols; paper: whether it is the paper's rule; typicality_weight:
    of what a residual exceeds the expert's own 95th percentile by (`Scoring.typicality_weight`)."""

    verb: str
    done: str
    what: str
    cost: str
    formula: str
    paper: bool = False
    typicality_weight: float = 0.0

    @property
    def added(self) -> str:
        """What is added to a residual before experts are ranked; empty for plain residuals."""
        weight = self.typicality_weight
        return (
            f"{weight:g} x what exceeds the 95th percentile of the expert's own text"
            if weight
            else ""
        )

    @property
    def ranking_score(self) -> str:
        """`cost`, and what is added to it."""
        return f"{self.cost} + {self.added}" if self.typicality_weight else self.cost


_SEEN = Wording(
    "rebuilds",
    "rebuilt",
    "it",
    "nats/token to rebuild the text",
    "−mean log p(x | z), in nats/token",
    paper=True,
)
_HIDDEN = Wording(
    "rebuilds",
    "rebuilt",
    "what was hidden of it",
    "nats/token to rebuild hidden tokens of the text",
    "−mean log p(hidden xᵢ | z), in nats/token",
)
_PREDICTED = Wording(
    "predicts",
    "predicted",
    "it",
    "nats/token to predict the text, each token from those before it",
    "the encoder’s −mean log p(xᵢ | x₁ … xᵢ₋₁), nats/token",
)
_MIXED = _PREDICTED._replace(
    cost="nats/token to predict the text, each token from those before it and from bigrams",
    formula="−mean log p(xᵢ | x₁ … xᵢ₋₁), encoder with bigrams, nats/token",
)


def wording(rule: Scoring | Any) -> Wording:
    """The words for a rule or for its stored description, of which whatever is unknown is ignored.

    A rule that hides nothing but gives the decoder a part of z rebuilds seen tokens, though not as
    in the paper.
    """
    get = rule.get if isinstance(rule, Mapping) else lambda name: getattr(rule, name, None)
    plain, weight = _residual(get), get("typicality_weight") or get("excess")
    if type(weight) not in (int, float) or not 0 < weight < float("inf"):
        return plain
    return plain._replace(paper=False, typicality_weight=float(weight))


def _residual(get: Callable[[str], Any]) -> Wording:
    given = lambda name: type(get(name)) is int and get(name) > 0
    if get("predicted") is True:
        weight = get("bigram_weight") or get("pairs")
        return _MIXED if type(weight) is float and weight > 0 else _PREDICTED
    if given("parts"):
        return _HIDDEN
    if given("rate"):
        return _SEEN._replace(cost=f"{_SEEN.cost} from a part of its latents", paper=False)
    return _SEEN
