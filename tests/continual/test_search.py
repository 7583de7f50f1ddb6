"""Which of a domain's documents are held out, and which kept ones are looked at."""

import numpy as np
import tiny_grow

from cr_jax.bank import ExpertBank
from cr_jax.continual import duplicates, search
from cr_jax.scoring.bigram_lookup import BigramLookup


def key(i: int) -> str:
    return f"{i:064x}"


def shares(tokens):
    train, valid = search.split(tokens)
    assert sorted((*train, *valid)) == sorted(tokens)
    return sum(tokens[i] for i in valid) / sum(tokens.values()), valid


def test_a_fifth_of_the_tokens_is_held_out_those_with_the_lowest_hashes():
    share, valid = shares({key(i): 100 for i in reversed(range(50))})
    assert share == 0.2 and sorted(valid) == [key(i) for i in range(10)]
    share, valid = shares({key(i): 10 for i in range(40)} | {key(99): 50})
    assert 0.2 <= share < 0.25 and valid == [key(i) for i in range(9)]


def test_one_long_document_leaves_text_to_train_on_and_to_calibrate_on():
    share, valid = shares({key(0): 5000, **{key(i): 100 for i in range(1, 8)}})
    assert key(0) not in valid and 0 < share <= 0.4
    share, valid = shares({key(9): 5000, **{key(i): 100 for i in range(1, 8)}})
    assert key(9) not in valid and share <= 0.4
    share, _ = shares({key(0): 300, key(1): 390, **{key(i): 100 for i in range(2, 8)}})
    assert 0.2 <= share <= 0.4


def test_the_newest_documents_are_looked_at_before_any_is_read(monkeypatch):
    monkeypatch.setattr(search, "MOST_TOKENS", 100)
    assert search.newest({"a": 30, "b": 40, "c": 60}) == ["b", "c"]
    assert search.newest({"a": 30, "b": 40, "c": 101}) == ["a", "b"]  # one that never fits
    assert search.newest({}) == []


def test_a_domain_is_compared_with_its_nearest_expert_alone(tmp_path):
    bank = ExpertBank.load(tiny_grow.bank(tmp_path))
    texts = {key(i): tiny_grow.text("marks", 40_000 + i) for i in range(16)}
    # Half of two documents is of the one expert, most of the others are nearer to the other one.
    for i in range(16):
        texts[key(i)] += tiny_grow.text("digits" if i < 2 else "letters", i)[: 120 if i < 2 else 40]
    (domain,) = search.domains(bank, texts, 1000)
    near = bank.names.index(domain.nearness.expert)
    ids = [np.array(bank.tokenizer.encode(texts[k])) for k in domain.ids]
    lookup = BigramLookup(search.bigrams(bank))
    costs = [lookup.token_nats(x[1:], int(x[0])) for x in ids]
    assert len({int(cost.sum(0).argmin()) for cost in costs}) == 2
    by_one = [cost[:, near].astype(np.float64) for cost in costs]
    want = duplicates.nearness(bank.names[near], search.bigrams(bank)[near], ids, by_one)
    assert (domain.nearness.gain, domain.nearness.loss) == (want.gain, want.loss)
