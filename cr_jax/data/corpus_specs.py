"""Which corpora an experiment reads: one per domain and split, and per source of a mixture."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

from cr_jax.config import Experiment
from cr_jax.data.text_form import LF_NFC
from cr_jax.host.files import expanded


@dataclasses.dataclass(frozen=True)
class CorpusSpec:
    """One corpus by what makes it.  `specs`: as in the settings, without a share of rows; they may
    hold {root}.  `max_tokens`: it is cut there.  `group_key`, `text_form`: as in the
    settings.
    """

    domain: str
    split: str  # "train", "valid" or "test"
    specs: tuple[str, ...]
    max_tokens: int | None = None
    group_key: str = ""
    text_form: str = LF_NFC

    def __str__(self) -> str:
        return f"{self.domain} {self.split}"

    def placed(self, root: str) -> list[str]:
        """The sources below `root`."""
        return placed(self.specs, root)


def placed(specs: Sequence[str], root: str) -> list[str]:
    """Sources with `root`, whose `~` is expanded, in place of {root}."""
    # Any other root stays as it is written: the specs are part of the keys of finished corpora.
    root = os.fspath(expanded(root)) if root.startswith("~") else root
    return [spec.replace("{root}", root) for spec in specs]


def training_specs(e: Experiment, domain: str) -> tuple[list[CorpusSpec], list[float] | None]:
    """A domain's training corpora, and the share of rows from each when its sources have shares.

    Without shares all sources are one corpus.  A source without a share counts as 1 beside others.
    """
    most, how = e.data.max_train_tokens or None, (e.data.group_key, e.data.text_form)
    sources = [weighted(s) for s in e.data.domains[domain].train]
    if all(share is None for share, _ in sources):
        return [CorpusSpec(domain, "train", tuple(s for _, s in sources), most, *how)], None
    shares = [1.0 if share is None else share for share, _ in sources]
    return [
        CorpusSpec(domain, "train", (spec,), most and max(1, int(most * share / sum(shares))), *how)
        for share, (_, spec) in zip(shares, sources, strict=True)
    ], shares


def held_out_spec(e: Experiment, domain: str, split: str) -> CorpusSpec:
    """A domain's corpus of the split "valid" or "test"; of an unseen domain "test"."""
    sources = e.data.domains.get(domain) or e.data.unseen[domain]
    return CorpusSpec(
        domain,
        split,
        tuple(getattr(sources, split)),
        group_key=e.data.group_key,
        text_form=e.data.text_form,
    )


def all_specs(e: Experiment) -> Sequence[CorpusSpec]:
    """Every corpus that the experiment reads, once."""
    return list(dict.fromkeys(_each(e)))


def _each(e: Experiment) -> Iterator[CorpusSpec]:
    for name in e.data.domains:
        yield from training_specs(e, name)[0]
    for name in e.data.domains:
        yield held_out_spec(e, name, "valid")
    for name in [*e.data.domains, *e.data.unseen]:
        yield held_out_spec(e, name, "test")


def weighted(spec: str) -> tuple[float | None, str]:
    """A training source with its share of rows: "0.3*jsonl:a.jsonl" -> (0.3, "jsonl:a.jsonl").

    Without a share: (None, spec).  When no source of a domain has one, rows follow its tokens;
    otherwise sources without a share count as 1.

    >>> weighted("3*stdlib@train"), weighted("files:a*b.txt")
    ((3.0, 'stdlib@train'), (None, 'files:a*b.txt'))
    """
    share, star, rest = spec.partition("*")
    with contextlib.suppress(ValueError):
        if star and float(share) > 0:
            return float(share), rest
    return None, spec
