"""A screen is measured on whole validation documents, cut to few and many windows."""

import dataclasses

import numpy as np
from tiny_bank import altered, documents_of, in_memory, refuses, trained_bank, without_bigrams

from cr_jax import router
from cr_jax.routing import screen
from cr_jax.routing.scored_documents import score_documents
from cr_jax.routing.screen_fit import fit_screen, said
from cr_jax.scoring.batching import BatchSizes

SIZES = BatchSizes(2, 16, 128)


def test_it_measures_exact_routing_of_each_beginning(monkeypatch):
    seen = {}
    fit = screen.fit
    monkeypatch.setattr(
        screen, "fit", lambda measured, *more: seen.update(measured) or fit(measured, *more)
    )
    bank = trained_bank()
    own = {"e0": documents_of(97, 107, 1), "e1": documents_of(113, 123, 2)}
    made = fit_screen(bank, score_documents(bank, own, SIZES))
    assert {k: len(m.winner) for k, m in seen.items() if len(m.winner)} == {1: 90, 2: 90}
    assert set(made.margins) == {1, 2} and made.agreement == 1 and made.documents == 180
    assert (seen[1].winner == np.repeat([0, 1], 45)).all()
    first = own["e0"].take(slice(0, 2))
    exact = router.route(bank, first, sizes=SIZES)
    assert (exact.nearest, exact.known) == ("e0", bool(seen[2].known[0]))
    assert seen[2].known.mean() > 0.5 and "90" not in said(made) and "180" in said(made)


def test_a_winner_far_from_its_bigram_model_is_found(monkeypatch):
    seen = {}
    fit = screen.fit
    monkeypatch.setattr(
        screen, "fit", lambda measured, *more: seen.update(measured) or fit(measured, *more)
    )
    bank = trained_bank()
    near, far = bank.bigrams["e1"], bank.bigrams["e0"]
    for i, expert in enumerate(in_memory(4).experts):  # untrained: they win nothing
        bank = bank.mount(dataclasses.replace(expert, name=f"u{i}", bigram=near))
    bank = altered(bank, bigram={"e1": far})
    own = {"e1": documents_of(113, 123, 2), "e0": documents_of(97, 107, 1)}
    made = fit_screen(bank, score_documents(bank, own, SIZES))
    assert (seen[1].winner[:45] == 1).all() and made.agreement == 1
    order = np.argsort(seen[1].residuals[:45], 1, kind="stable")
    assert (np.argwhere(order == 1)[:, 1] > 3).all()
    assert made.margins[1] > (seen[1].residuals[:45, 1] - seen[1].residuals[:45].min(1)).max()


def test_what_cannot_be_measured_is_refused():
    bank, few = trained_bank(), documents_of(97, 107, 1, 3)
    scored = score_documents(bank, {"e0": few}, SIZES)
    refuses(lambda: fit_screen(bank, scored), "there are 3")
    refuses(lambda: fit_screen(bank, scored, at_least=2), "at_least")
    refuses(lambda: fit_screen(without_bigrams(bank), scored), "no bigram model")
