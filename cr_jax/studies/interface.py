"""What a study is given and what it gives back; `registry` holds the studies by name.

Context -> run -> {key: value} of report.json -> section -> a table on the page
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from cr_jax.bank import ExpertBank
from cr_jax.config import Experiment
from cr_jax.data.experiment_text import Corpora
from cr_jax.data.windows import Windows
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies.evaluation import DomainScores
from cr_jax.studies.sums import Key, Sums, measure, scorer


@dataclasses.dataclass(frozen=True)
class Context:
    """A finished run: its settings, its text, its bank, and every expert's scores on test.

    language_models: as `studies.modular.models.LanguageModels`; None where the run trained none.
    """

    experiment: Experiment
    text: Corpora
    bank: ExpertBank
    scores: Mapping[str, DomainScores]  # of every domain of `text.test`
    language_models: Any = None

    @property
    def own_test(self) -> dict[str, Windows]:
        """Test windows of the experts' own domains, in the order of the experts."""
        return {name: self.text.test[name] for name in self.bank.names}

    @functools.cached_property
    def test_sums(self) -> dict[str, Sums]:
        """Sums of every domain's test windows; nothing is scored again."""
        return {
            name: Sums(s.residual * s.tokens, s.correct, s.tokens, self.text.test[name].document)
            for name, s in self.scores.items()
        }

    @functools.cached_property
    def valid_sums(self) -> dict[str, Sums]:
        """Sums of the validation windows of the experts' own domains, scored once."""
        return self.measure({name: self.text.valid[name] for name in self.bank.names})

    def measure(self, windows: Mapping[Key, Windows]) -> dict[Key, Sums]:
        """Scores further windows by every expert, as the run's own scoring rule says."""
        settings = self.experiment.eval
        sizes = BatchSizes.of(settings)
        return measure(scorer(self.bank, sizes), windows)


@dataclasses.dataclass(frozen=True)
class Section:
    """A study's part of the page: one table of ready texts with its caption.

    `rows` has as many texts in each row as `head`; `read` says how to read the table, `false_if`
    what would show its claim false, `finding` what this run found ("": nothing to add).
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    read: str
    false_if: str
    finding: str = ""


def unchecked(experiment: Experiment) -> None:
    """The check of a study that any run allows."""


@dataclasses.dataclass(frozen=True)
class Study:
    """One entry of `config.studies`.

    run: the context -> new keys of the report.  section: the report -> its table; None for a study
    whose section the page draws itself.  check: raises `UserError` before text is read when the
    settings do not allow the study.
    """

    name: str
    run: Callable[[Context], dict]
    section: Callable[[dict], Section] | None = None
    check: Callable[[Experiment], None] = unchecked


class Found(NamedTuple):
    """A finished study.  part: its keys of the report; section: its table as a dict, None where it
    has none."""

    part: dict[str, Any]
    section: dict[str, Any] | None


@runtime_checkable
class Kept(Protocol):
    """Where finished studies are kept, so that a run that goes on need not make them again."""

    def get(self, study: Study) -> Found | None:
        """What the study found before, in plain JSON types; None where it is to be made."""

    def put(self, study: Study, found: Found) -> None:
        """Keeps it."""
