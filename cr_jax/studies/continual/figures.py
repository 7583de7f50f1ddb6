"""ACC, BWT, FWT and forgetting of an accuracy matrix.

R[i, j]: the figure on domain j after domain i has been learnt, domains 0 ... T - 1 in the order of
their arrival; higher is better.  After GEM (Lopez-Paz and Ranzato 2017, arXiv 1706.08840, section
2), forgetting after Chaudhry et al. 2018 (arXiv 1801.10112).  Not in the paper.
"""

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "T T"]


def acc(r: Matrix) -> float:
    """ACC = 1 / T sum_j R[T - 1, j]: the mean over all domains at the end."""
    return float(r[-1].mean())


def bwt(r: Matrix) -> float:
    """BWT = 1 / (T - 1) sum_{j < T - 1} R[T - 1, j] - R[j, j]: negative where domains that came
    earlier have become worse since they were learnt."""
    return float((r[-1] - r.diagonal())[:-1].mean())


def fwt(r: Matrix, base: Float[np.ndarray, " T"]) -> float:
    """FWT = 1 / (T - 1) sum_{j > 0} R[j - 1, j] - b[j]: what a domain gains by those before it.

    b: GEM's is the figure of a model that has learnt nothing; here what needs no model, such as the
    share of a domain's most frequent token, which is more.
    """
    return float((r.diagonal(1) - base[1:]).mean())


def forgetting(r: Matrix) -> float:
    """F = 1 / (T - 1) sum_{j < T - 1} max_{j <= i < T - 1} R[i, j] - R[T - 1, j]."""
    last = len(r) - 1
    return float(np.mean([r[j:last, j].max() - r[last, j] for j in range(last)]))


def all_of(r: Matrix, base: Float[np.ndarray, " T"] | None = None) -> dict[str, float | None]:
    """{"acc", "bwt", "fwt", "forgetting"}; FWT is None without a base."""
    return {
        "acc": acc(r),
        "bwt": bwt(r),
        "fwt": None if base is None else fwt(r, base),
        "forgetting": forgetting(r),
    }
