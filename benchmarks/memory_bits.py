"""Bits/byte of `benchmarks.latent_memory`: what text costs after a past that is kept."""

from typing import Any

import numpy as np

from benchmarks import memory_indexes
from benchmarks import memory_tasks as tasks
from cr_jax.models import lm
from cr_jax.modular import memory, paged
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.score import token_nats
from cr_jax.training import speed


def bits(setting: tasks.Setting, options, documents, segments: int) -> dict[str, Any]:
    """Arm -> bits/byte of segments of long documents, with state and work."""
    positions, bank = setting.positions, setting.bank
    segment = paged.segment_of(positions)
    span, pages = tasks.spans(setting, options)[0], options.pages
    sums: dict[str, float] = {}
    states: dict[str, list[int]] = {}
    total = 0
    for document in documents:
        kept = tasks.memories(setting, options, document)
        place = tasks.speaker(setting, kept["latents_bfloat16"])
        starts = np.linspace(positions, len(document) - segment, segments).astype(int)
        rows = lambda reader, at=starts, ids=document: paged.contexts(
            ids, reader, options, positions, starts=at
        )
        recent, own = rows(None)
        read = {
            "nothing": (recent[:, -segment:], own[:, -segment:]),
            "half": (recent[:, span * pages :], own[:, span * pages :]),
            "sliding": (recent, own),
            "random_pages": rows(memory_indexes.Anywhere(bank, kept["ids"], setting.sizes)),
        }
        read |= {name: rows(Reader(bank, one, setting.sizes)) for name, one in kept.items()}
        for name, (tokens, at) in read.items():
            params = setting.lms.stack(np.array([place]))
            batch = setting.sizes.rows(len(tokens))
            nats = token_nats(setting.lms.config, params, tokens, setting.sizes.tokens, batch)
            sums[name] = sums.get(name, 0.0) + float(nats[0][at].sum(dtype=np.float64))
            raw = {"half": positions - span * pages, "sliding": positions, "nothing": 0}
            size = kept[name].nbytes if name in kept else 2 * raw.get(name, 0)
            states.setdefault(name, []).append(size)
        total += int(bank.tokenizer.token_bytes[recent[own]].sum())
    per_position = lm.cache_bytes(setting.lms.config, positions) / positions
    found = {
        name: {
            "state_bytes": int(np.mean(states[name])),
            "flops_per_token": _flops(setting, options, name),
            "bpb": nats / np.log(2) / total,
        }
        for name, nats in sums.items()
    }
    full = int(per_position * np.mean([len(d) for d in documents]))
    found["full_kv"] = {"state_bytes": full, "flops_per_token": None, "bpb": None}
    for name, row in found.items():
        print(f"bits/byte {name:20} {row}", flush=True)
    return found


def _flops(setting: tasks.Setting, options, arm: str) -> float:
    """Operations per scored token: the language model reads its positions once a segment; latents
    are written once and rebuilt for each segment's pages."""
    positions, config = setting.positions, setting.lms.config
    segment, span = paged.segment_of(positions), tasks.spans(setting, options)[0]
    read = {"nothing": segment, "half": positions - span * options.pages}.get(arm, positions)
    work = lm.forward_flops(config, read) * read / segment
    if not arm.startswith("latents"):
        return work
    model = setting.bank.model
    parts = speed.forward_flops(model)
    decoder = parts["decoder"] + parts["vocabulary"] + parts["bottleneck"] / 2
    encoder = parts["encoder"] + parts["bottleneck"] / 2
    experts = min(len(setting.bank.names), memory.CANDIDATES)
    routed = experts * (parts["encoder"] + parts.get("prediction", 0.0))
    written = (routed + encoder + decoder) / model.window
    return work + written + options.pages * decoder / segment
