"""Study `lengths`: how much text does routing need?  Windows cut short, and whole documents.

The paper routes windows of 512 tokens; shorter texts, documents and the test that stops early are
not in it.

    windows, documents -> sums -> run
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cr_jax.data.corpus import Corpus
from cr_jax.data.windows import Windows, document_windows
from cr_jax.errors import UserError
from cr_jax.studies.sequential import curve, fit_evidence, prefixes
from cr_jax.studies.sums import Sums

LENGTHS = (16, 32, 64, 128, 512)
THRESHOLDS = (0.5, 0.9, 0.99, 0.999, 0.9999)


def windows(
    domains: Mapping[str, Windows], lengths: Sequence[int] = LENGTHS
) -> dict[int, dict[str, Windows]]:
    """Each domain's windows cut to their first l tokens, the rest hidden by the mask.

    Windows with fewer tokens are left out of that length.  `UserError` when a length does not fit
    or a domain has no window that long.
    """
    cut: dict[int, dict[str, Windows]] = {}
    for length in lengths:
        cut[length] = {}
        for name, w in domains.items():
            most = w.tokens.shape[1]
            if not 0 < length <= most:
                raise UserError(f"length {length} must lie in [1, {most}], the window")
            long = w.mask.sum(-1) >= length
            if not long.any():
                raise UserError(
                    f"{name}: no test window has {length} tokens; leave that length "
                    "out or give longer documents"
                )
            mask = w.mask[long] & (np.arange(most)[None] < length)
            cut[length][name] = Windows(w.tokens[long], mask, w.document[long])
    return cut


def documents(
    corpora: Mapping[str, Corpus],
    window: int,
    pad_id: int,
    *,
    limit: int = 64,
    most_tokens: int = 8192,
    least_tokens: int = 64,
) -> dict[str, Windows]:
    """`data.document_windows` of each domain.  `UserError` for one without a document that long."""
    whole_documents = {}
    for name, corpus in corpora.items():
        whole_documents[name] = document_windows(
            corpus, window, pad_id, limit=limit, most_tokens=most_tokens, least_tokens=least_tokens
        )
        if not len(whole_documents[name]):
            raise UserError(f"{name}: no test document has {least_tokens} tokens; ask for less")
    return whole_documents


def run(
    names: Sequence[str],
    by_length: Mapping[int, Mapping[str, Sums]],
    documents: Mapping[str, Sums] | None = None,
    valid_documents: Mapping[str, Sums] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict:
    """-> {"accuracy": {"16": .., "document": ..}, "per_domain", "confusion", "windows", "tra",
    "chance", "sequential"}: where windows and documents of each expert's own domain go.

    names: experts in the order of the rows, each named after its domain; other domains are left
    out.  Accuracy is the mean over domains, by least nats/token (paper, routing rule); "tra" is
    the same by most tokens rebuilt exactly.  A document goes by its residual over all its tokens.
    sequential (only with `valid_documents`, which fit its two numbers): for each threshold the
    accuracy and the mean number of windows read, beside reading a fixed number of windows.
    """
    cases: dict[str, Mapping[str, Sums]] = {str(k): v for k, v in sorted(by_length.items())}
    if documents is not None:
        cases["document"] = {n: whole(s) for n, s in documents.items()}
    measured = {k: {} for k in ("accuracy", "accuracy_tra", "per_domain", "confusion", "windows")}
    for case, domains in cases.items():
        own = _own(names, domains)
        table, right, right_tra = {}, {}, {}
        for home, name in own:
            s = domains[name]
            won = s.residual.argmin(0)
            table[name] = {n: int((won == e).sum()) for e, n in enumerate(names)}
            right[name] = float((won == home).mean())
            right_tra[name] = float(((s.correct / s.tokens).argmax(0) == home).mean())
        measured["accuracy"][case] = float(np.mean(list(right.values())))
        measured["accuracy_tra"][case] = float(np.mean(list(right_tra.values())))
        measured["per_domain"][case] = right
        measured["confusion"][case] = table
        measured["windows"][case] = {n: len(domains[n].tokens) for _, n in own}
    out = {**measured, "chance": 1 / len(names), "rule": "argmin nats/token", "sequential": None}
    if documents is not None and valid_documents is not None:
        evidence = fit_evidence(_prefixes(names, valid_documents))
        out["sequential"] = curve(_prefixes(names, documents), evidence, thresholds)
    return out


def whole(sums: Sums) -> Sums:
    """Windows' sums -> documents' sums, in the order of first appearance."""
    _, first, at = np.unique(sums.document, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    at = order[at]

    def add(values):
        out = np.zeros((*values.shape[:-1], len(first)), values.dtype)
        np.add.at(out, (..., at), values)
        return out

    return Sums(add(sums.nll), add(sums.correct), add(sums.tokens), sums.document[np.sort(first)])


def _own(names, domains) -> list[tuple[int, str]]:
    own = [(e, n) for e, n in enumerate(names) if n in domains]
    if not own:
        raise UserError(
            f"no domain is named after an expert: {', '.join(domains)} against {', '.join(names)}"
        )
    return own


def _prefixes(names, documents):
    """Every document's running sums, with its home: one entry per document."""
    curves = []
    for home, name in _own(names, documents):
        s = documents[name]
        for document in np.unique(s.document):
            at = s.document == document
            curves.append((home, *prefixes(s.nll[:, at], s.tokens[at])))
    return curves
