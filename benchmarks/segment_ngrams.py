"""Linear n-grams that price tokens, for the decoder of spans: baselines of `benchmarks.segments`.

    token n-grams   a linear classifier of 64 tokens' counts of 1- and 2-grams is a sum over tokens:
                    what each token adds against a domain is its price there
    lines           character 1- to 3-grams of each line (as NLoN does), -log p spread evenly over
                    the line's tokens

Both are logistic regressions with scikit-learn, trained on windows of the domains' train splits.
Letters: E experts, T tokens.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.studies.segments import Prices

PIECE = 64  # tokens of a training example
FEATURES = 1 << 16
EXAMPLES = 1500  # of each domain


def peers(bank: ExpertBank, train: Mapping[str, Windows]) -> dict[str, Prices]:
    """{name: prices}, trained on `train`: windows of each of the bank's domains, in its order."""
    flat = [w.tokens[w.mask] for w in train.values()]
    by_token, by_line = _by_token(flat), _by_line(flat, bank.tokenizer)
    return {
        "linear token n-grams": lambda text: by_token(text.ids),
        "linear character n-grams, per line": lambda text: by_line(text.ids),
    }


def _hashed(ids: Int[np.ndarray, " T"]) -> sparse.csr_matrix:
    """[T, FEATURES]: the 1-gram and the 2-gram that end at each token."""
    before = np.concatenate([[0], ids[:-1] + 1]).astype(np.uint64)
    one = ids.astype(np.uint64) * np.uint64(2654435761)
    two = one + before * np.uint64(40503 * 65537 + 1)
    mix = lambda x: ((x ^ (x >> np.uint64(15))) * np.uint64(2246822519)) % np.uint64(FEATURES)
    columns = np.stack([mix(one), mix(two)], 1).ravel().astype(np.int64)
    rows = np.repeat(np.arange(len(ids)), 2)
    return sparse.csr_matrix((np.ones(len(columns)), (rows, columns)), (len(ids), FEATURES))


def _examples(flat: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    cut = [[f[i : i + PIECE] for i in range(0, len(f) - PIECE + 1, PIECE)][:EXAMPLES] for f in flat]
    return [x for own in cut for x in own], np.repeat(np.arange(len(cut)), [*map(len, cut)])


def _fitted(x, y):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=200).fit(x, y)


def _by_token(flat):
    examples, owner = _examples(flat)
    x = sparse.vstack([sparse.csr_matrix(_hashed(ids).sum(0)) for ids in examples])
    model = _fitted(x, owner)
    # Of two classes scikit-learn keeps one row.
    weights = model.coef_ if len(flat) > 2 else np.concatenate([-model.coef_, model.coef_])

    def prices(ids) -> Float[np.ndarray, "E T"]:
        return -np.asarray(_hashed(ids) @ weights.T).T

    return prices


def _by_line(flat, tokenizer):
    from sklearn.feature_extraction.text import HashingVectorizer

    work = HashingVectorizer(analyzer="char", ngram_range=(1, 3), n_features=FEATURES)
    text_of = lambda ids: tokenizer.to_bytes(ids).decode("utf-8", "replace")
    texts, owner = [], []
    for who, ids in enumerate(flat):
        own = [line for line in text_of(ids[: PIECE * EXAMPLES]).split("\n") if line.strip()]
        texts += own[: 4 * EXAMPLES]
        owner += [who] * len(own[: 4 * EXAMPLES])
    model = _fitted(work.transform(texts), np.array(owner))

    def prices(ids) -> Float[np.ndarray, "E T"]:
        ends = np.array([b"\n" in tokenizer.to_bytes(ids[i : i + 1]) for i in range(len(ids))])
        edges = np.unique([0, *(np.flatnonzero(ends) + 1), len(ids)])
        lines = [text_of(ids[a:b]) for a, b in itertools.pairwise(edges)]
        each = -model.predict_log_proba(work.transform(lines)) / np.diff(edges)[:, None]
        return np.repeat(each, np.diff(edges), axis=0).T

    return prices
