"""Whole documents of domains that a stored bank knows, and of others: what is called unknown?

    python -m benchmarks.bank.documents --config configs/pretrained.py --config.data.root=DATA \\
        --out results/pretrained_documents.json [--bank BANK] [--split test] [--documents 40] \\
        [--unseen code_c scientific ...]

Documents of the config's domains and of `config.data.unseen`, evenly spread over a split, by their
first windows (`--windows`); --unseen: further domains below DATA, in folders of these names, or
NAME=SOURCE with any source of docs/data.md, such as kotlin='files:FOLDER/**/*.kt'.  Each document
is scored once and judged three times: as the bank does, by residual and margin, without its
surprise, and by the residual alone.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.results import answered, commit, versions, write
from cr_jax import config as settings
from cr_jax import router
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.config import Experiment
from cr_jax.config.command_line import load
from cr_jax.data import Windows, document_windows, load_corpus
from cr_jax.data.corpus_specs import held_out_spec
from cr_jax.errors import UserError
from cr_jax.routing.document import counts_surprise, route_of
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import Route
from cr_jax.scoring.batching import BatchSizes

MOST = 8_000_000  # tokens that are read of a split


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(p)
    p.add_argument("--alpha", type=float, default=0.05)
    p.add_argument("--out", required=True)
    a, overrides = p.parse_known_args(arguments)
    a.overrides = overrides
    return answered("benchmarks.bank.documents", run, a, arguments)


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The flags that say which documents are read."""
    p.add_argument("--config", required=True)
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--split", default="test", choices=("valid", "test"))
    p.add_argument("--documents", type=int, default=40, help="of each domain")
    p.add_argument("--windows", type=int, default=16, help="first windows of a document")
    p.add_argument("--unseen", nargs="*", default=[], metavar="NAME[=SOURCE]")


def experiment(a: argparse.Namespace) -> Experiment:
    """The config, with the further domains that are named."""
    raw = load(a.config, a.overrides)
    for given in a.unseen:
        name, _, spec = given.partition("=")
        spec = spec or f"jsonl:{{root}}/{name}/{a.split}.jsonl.zst"
        raw.data.unseen[name] = settings.domain(valid=spec, test=spec)
    return settings.build(raw)


def run(a: argparse.Namespace, command: str) -> None:
    """Measures and writes."""
    e = experiment(a)
    bank = ExpertBank.load(a.bank, lms=False)
    rules = rules_of(bank)
    found = {"known": {}, "unknown": {}}
    every = (*e.data.domains, *(n for n, of in e.data.unseen.items() if getattr(of, a.split)))
    for name in every:
        known = name in bank.names
        if name in e.data.domains and not known:
            raise UserError(f"the bank has no expert {name!r}: give the config it was made by")
        row = judged(rules, documents_of(e, bank, name, a), a)
        found["known" if known else "unknown"][name] = row
        print(f"{name:16s} {json.dumps(row)}", flush=True)
    rate = lambda of, key: float(np.mean([r[key] / r["documents"] for r in of.values()]))
    known, unknown = found["known"], found["unknown"]
    write(
        a.out,
        json.dumps(
            {
                **found,
                "accuracy": sum(r["nearest"].get(n, 0) for n, r in known.items())
                / sum(r["documents"] for r in known.values()),
                "false_alarms": rate(known, "called_unknown"),
                "refused": rate(unknown, "called_unknown"),
                **{
                    rule: {"false_alarms": rate(known, rule), "refused": rate(unknown, rule)}
                    for rule in rules
                    if rule != "called_unknown"
                },
                "alpha": a.alpha,
                "windows": a.windows,
                "command": command.replace(str(e.data.root), "DATA"),
                "commit": commit(),
                "versions": versions(),
            },
            indent=1,
        )
        + "\n",
    )


def rules_of(bank: ExpertBank) -> dict[str, ExpertBank]:
    """The bank, and what it was before it knew surprises, and before it knew margins."""
    few = lambda own: own and dataclasses.replace(own, surprises={})
    with_own = lambda change: bank.changed(
        experts=tuple(
            dataclasses.replace(x, own_documents=change(x.own_documents)) for x in bank.experts
        )
    )
    return {
        "called_unknown": bank,
        "by_margin": with_own(few),
        "by_residual": with_own(lambda own: None),
    }


def judged(rules: Mapping[str, ExpertBank], documents: Windows, a) -> dict:
    """{"documents", the rules that call so many unknown, "nearest": expert -> documents, "reasons":
    reason -> documents} of one domain."""
    found = list(judgements(list(rules.values()), documents, RouteOptions(alpha=a.alpha)))
    return {
        "documents": len(found),
        **{rule: sum(routes[i].known is False for routes in found) for i, rule in enumerate(rules)},
        "nearest": dict(Counter(routes[0].nearest for routes in found)),
        "reasons": dict(Counter(routes[0].reason for routes in found if routes[0].reason)),
    }


def judgements(
    banks: Sequence[ExpertBank], documents: Windows, options: RouteOptions
) -> Iterator[list[Route]]:
    """The route of every document by each of the banks, whose experts are those of the first."""
    sizes, surprise = BatchSizes.for_device(), counts_surprise(banks[0])
    sums = router.score_bank(banks[0], documents, sizes, surprise=surprise)
    for d in np.unique(documents.document):
        at = np.flatnonzero(documents.document == d)
        own = sums.take((slice(None), at))
        yield [route_of(bank, documents.take(at), own, options) for bank in banks]


def documents_of(e: Experiment, bank: ExpertBank, name: str, a) -> Windows:
    """First windows of documents of a domain, evenly spread over the split."""
    window, pad = bank.model.window, bank.tokenizer.pad_id
    with tempfile.TemporaryDirectory() as cache:
        specs = held_out_spec(e, name, a.split).placed(e.data.root)
        corpus = load_corpus(specs, bank.tokenizer, cache, MOST)
        return document_windows(
            corpus,
            window,
            pad,
            limit=a.documents,
            most_tokens=a.windows * window,
            least_tokens=window,
        )


if __name__ == "__main__":
    sys.exit(main())
