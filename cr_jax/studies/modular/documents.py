"""Windows that go from one domain to another, and which expert speaks each of their tokens.

For people to look at: the figures of the same windows are in the table.  Not in the paper.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cr_jax.data.windows import Windows
from cr_jax.modular import schedule
from cr_jax.modular.options import SEED_NAME
from cr_jax.studies.modular.nats import DomainNats

TOKENS, MOST = 256, 4  # as many windows as hold so many tokens, at most so many windows


def spoken_documents(
    windows: Windows, d: DomainNats, names: Sequence[str], tokenizer: Any
) -> Mapping[str, Any]:
    """The first of the windows, full ones, decided often enough to follow their switches.

    d: their nats, with labels.  -> {"every", "memory": tokens, "label_share": of the tokens after
    the first decision those that the label's expert speaks, "windows": [[{"piece", "expert",
    "label", "nats"}]]}; the seed speaks until the first decision.
    """
    length = d.mask.shape[1]
    memory = max(1, min(32, length // 4))
    every = max(1, memory // 4)
    count = min(MOST, len(d.mask), -(-TOKENS // length))
    some = slice(0, count)
    speaks = schedule.by_past(d.experts[:, some], d.mask[some], every, memory)
    nats = np.asarray(schedule.spoken(speaks, d.experts[:, some], d.seed[some]))
    who, label = np.asarray(speaks.expert), d.label[some]
    late = np.arange(length) >= every
    # A model's vocabulary is rounded up: an id past the tokenizer's stands for nothing.
    ids = np.minimum(windows.tokens[some], tokenizer.vocab_size - 1)
    return {
        "every": every,
        "memory": memory,
        "label_share": float((who == label)[:, late].mean()),
        "windows": [
            [
                {
                    "piece": piece,
                    "expert": names[e] if e >= 0 else SEED_NAME,
                    "label": names[truth],
                    "nats": round(float(x), 4),
                }
                for piece, e, truth, x in zip(tokenizer.pieces(row), *of, strict=True)
            ]
            for row, *of in zip(ids, who.tolist(), label.tolist(), nats.tolist(), strict=True)
        ],
    }
