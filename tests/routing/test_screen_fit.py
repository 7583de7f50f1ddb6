"""A screen is measured on whole validation documents, cut to few and many windows."""

import dataclasses

import numpy as np
from tiny_bank import TINY, altered, in_memory, refuses, trained_bank, windows, without_bigrams

from cr_jax import router
from cr_jax.data.windows import Windows
from cr_jax.routing import screen, screen_fit
from cr_jax.routing.screen_fit import first_documents, fit_screen, said
from cr_jax.scoring.batching import BatchSizes

SIZES = BatchSizes(2, 16, 128)


def documents(low: int, high: int, seed: int, count: int = 45) -> Windows:
    """Of three windows each, the last with 9 tokens."""
    parts = [windows(3, 100 * seed + i, low, high) for i in range(count)]
    fields = ("tokens", "mask")
    joined = [np.concatenate([getattr(x, f) for x in parts]) for f in fields]
    return Windows(*joined, np.repeat(np.arange(count), 3))


def test_it_measures_exact_routing_of_each_beginning(monkeypatch):
    seen = {}
    fit = screen.fit
    monkeypatch.setattr(
        screen, "fit", lambda measured, *more: seen.update(measured) or fit(measured, *more)
    )
    bank = trained_bank()
    own = {"e0": documents(97, 107, 1), "e1": documents(113, 123, 2)}
    made = fit_screen(bank, own, sizes=SIZES)
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
    own = {"e1": documents(113, 123, 2), "e0": documents(97, 107, 1)}
    made = fit_screen(bank, own, sizes=SIZES)
    assert (seen[1].winner[:45] == 1).all() and made.agreement == 1
    order = np.argsort(seen[1].residuals[:45], 1, kind="stable")
    assert (np.argwhere(order == 1)[:, 1] > 3).all()
    assert made.margins[1] > (seen[1].residuals[:45, 1] - seen[1].residuals[:45].min(1)).max()


def test_what_cannot_be_measured_is_refused():
    bank, few = trained_bank(), documents(97, 107, 1, 3)
    refuses(lambda: fit_screen(bank, {"e0": few}, sizes=SIZES), "there are 3")
    refuses(lambda: fit_screen(bank, {"e0": few.take(slice(2, 3))}), "documents")
    refuses(lambda: fit_screen(bank, {"e0": few}, at_least=2), "at_least")
    refuses(lambda: fit_screen(without_bigrams(bank), {"e0": few}), "no bigram model")


def test_documents_are_taken_whole_and_evenly():
    cut = first_documents(documents(97, 107, 1), 5)
    assert np.unique(cut.document).tolist() == [0, 11, 22, 33, 44] and len(cut) == 15
    assert cut.tokens.shape[1] == TINY.window
    counts = [screen_fit.documents_each(n) for n in (1, 10, 26, 1000)]
    assert counts[:2] == [100, 100] and counts[3] == 40 and counts[2] * 26 > 1000
