"""The studies that `config.studies` may name, each with its section of the report.

To add one: `register(Study("name", run, section))`, for example in the file of settings that
names it (docs/extending.md).  Not here, because their inputs are more than one finished run:
`scoring` compares stored residuals of several banks, `sequential` needs whole test documents, and
`capacity` trains a grid of settings (`config.ablation`).
"""

import dataclasses
import time
from collections.abc import Callable

from cr_jax.config import Experiment
from cr_jax.errors import UserError
from cr_jax.studies import decisions, fingerprint, geometry, routing
from cr_jax.studies.continual import entry as continual
from cr_jax.studies.entries import ENTRIES
from cr_jax.studies.in_context import entry as in_context
from cr_jax.studies.interface import Context, Found, Kept, Section, Study
from cr_jax.studies.modular import entry as modular
from cr_jax.studies.unknown import entry as unknown

__all__ = ["STUDIES", "Context", "Section", "Study", "check", "register", "run"]

# Keys of the report that a run fills itself.
OTHERS = frozenset(
    {
        "name",
        "summary",
        "examples",
        "curves",
        "training",
        "language_models",
        "seconds",
        "provenance",
        "sections",
    }
)
STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study("fingerprint", lambda c: fingerprint.run(c.bank.names, c.scores)),
        Study(
            "routing",
            lambda c: routing.run(
                c.bank, c.scores, tuple(c.experiment.data.unseen), c.experiment.eval.alpha
            ),
        ),
        Study("geometry", lambda c: geometry.run(c.bank, c.text.test, c.experiment.seed)),
        *ENTRIES,
        modular.STUDY,
        decisions.STUDY,
        unknown.STUDY,
        continual.STUDY,
        in_context.STUDY,
    )
}


def register(study: Study) -> Study:
    """Makes `config.studies` accept `study.name`.  Raises `UserError` for a name that is taken."""
    if not study.name.isidentifier() or study.name in STUDIES:
        raise UserError(
            f"a study cannot be named {study.name!r}: a name is one word, and taken "
            f"are {', '.join(STUDIES)}"
        )
    STUDIES[study.name] = study
    return study


def check(experiment: Experiment) -> None:
    """Raises `UserError` when `config.studies` names no study or one that cannot be made."""
    for name in experiment.studies:
        if name not in STUDIES:
            raise UserError(
                f"config.studies: unknown study '{name}'; there are {', '.join(STUDIES)}"
            )
        STUDIES[name].check(experiment)


def run(
    context: Context, say: Callable[[str], None] = lambda line: None, kept: Kept | None = None
) -> dict:
    """-> the report's new keys: what each study of `config.studies` found, and "sections".

    A study that cannot be made of this run's text is left out with one line, which also stands in
    its section: the run's other results are worth more than it.  One that `kept` holds is not made
    again.
    """
    answers: dict = {}
    sections: dict = {}
    for name in dict.fromkeys(context.experiment.studies):
        study = STUDIES[name]
        try:
            found = kept and kept.get(study)
            if not found:
                began = time.perf_counter()
                found = _made(study, context)
                if (seconds := time.perf_counter() - began) >= 1:
                    say(f"study {name}: {seconds:.0f} s")
                if kept:
                    kept.put(study, found)
            if taken := found.part.keys() & (answers.keys() | OTHERS):
                raise UserError(
                    f"its result has the key {', '.join(sorted(taken))}, which is "
                    "another's; choose another key"
                )
        except UserError as error:
            say(f"study {name} is left out: {error}")
            found = Found({}, {"title": name, "left_out": str(error)})
        answers |= found.part
        if found.section:
            sections[name] = found.section
    return {**answers, "sections": sections} if sections else answers


def _made(study: Study, context: Context) -> Found:
    part = study.run(context)
    return Found(part, dataclasses.asdict(study.section(part)) if study.section else None)
