"""Bits/byte of `benchmarks.latent_memory`: what text costs after a past that is kept.

Arms of adapters (`read`): a language model attends to the latents of the last windows before its
row, as many as the adapter knows.

    read           the last tokens and the latents before them; of other formats read_int8, ...
    read_only      nothing but the segment and the latents before it
    read_near      the same, of the very windows whose tokens `sliding` sees
    read_elsewhere, read_only_elsewhere    controls: latents of another place of the document
"""

from typing import Any

import jax
import numpy as np

from benchmarks import memory_indexes
from benchmarks import memory_tasks as tasks
from cr_jax.models import lm
from cr_jax.models.lm import latent_reader
from cr_jax.modular import memory, paged
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.memory_reader import Adapters, Latents, read_nats
from cr_jax.modular.score import token_nats
from cr_jax.training import speed


def bits(
    setting: tasks.Setting, options, documents, segments: int, adapters: Adapters | None = None
) -> dict[str, Any]:
    """Arm -> bits/byte of segments of long documents, with state and work.

    Segments begin where a window does.  With adapters, experts that have one speak; `UserError`
    where none of them keeps a window of a document.
    """
    positions, bank = setting.positions, setting.bank
    segment, window = paged.segment_of(positions), bank.model.window
    span, pages = tasks.spans(setting, options)[0], options.pages
    sums: dict[str, float] = {}
    states: dict[str, list[int]] = {}
    total = 0
    for document in documents:
        kept = tasks.memories(setting, options, document)
        among = adapters.params if adapters else None
        place = tasks.speaker(setting, kept["latents_bfloat16"], among)
        starts = np.linspace(positions, len(document) - segment, segments).astype(int)
        starts = np.maximum(starts // window, -(-positions // window)) * window
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
        if adapters:
            found = _read(setting, adapters, kept, place, (recent, own, starts))
            for name, (nats, size) in found.items():
                sums[name] = sums.get(name, 0.0) + nats
                states.setdefault(name, []).append(size)
        total += int(bank.tokenizer.token_bytes[recent[own]].sum())
    per_position = lm.cache_bytes(setting.lms.config, positions) / positions
    found = {
        name: {
            "state_bytes": int(np.mean(states[name])),
            "flops_per_token": _flops(setting, options, name, adapters),
            "bpb": nats / np.log(2) / total,
        }
        for name, nats in sums.items()
    }
    full = int(per_position * np.mean([len(d) for d in documents]))
    found["full_kv"] = {"state_bytes": full, "flops_per_token": None, "bpb": None}
    for name, row in found.items():
        print(f"bits/byte {name:20} {row}", flush=True)
    return found


def _read(
    setting: tasks.Setting, adapters: Adapters, kept, place: int, rows
) -> dict[str, tuple[float, int]]:
    """Arm -> (nats of all segments, bytes of latents) by the adapter of one expert."""
    positions, window = setting.positions, setting.bank.model.window
    segment, (recent, own, starts) = paged.segment_of(positions), rows
    name = setting.bank.names[place]
    params = jax.tree.map(lambda x: x[0], setting.lms.stack(np.array([place])))
    reader = adapters.params[name]
    first, own_only = starts - (positions - segment), (recent[:, -segment:], own[:, -segment:])
    near, far = (positions - segment) // window, lambda at: np.roll(at, len(at) // 2)
    arms = {
        "read": ("bfloat16", (recent, own), first, adapters.past),
        "read_int8": ("int8", (recent, own), first, adapters.past),
        "read_int4": ("int4", (recent, own), first, adapters.past),
        "read_elsewhere": ("bfloat16", (recent, own), far(first), adapters.past),
        "read_only": ("bfloat16", own_only, starts, adapters.past),
        "read_only_elsewhere": ("bfloat16", own_only, far(starts), adapters.past),
    }
    if near and near * window == positions - segment:
        arms["read_near"] = ("bfloat16", own_only, starts, near)
    found = {}
    for arm, (dtype, (tokens, at), ends, past) in arms.items():
        one = kept[f"latents_{dtype}"]
        read = Latents.of(one, name, past).before(ends // window)
        batch = min(32, setting.sizes.rows(len(tokens)))
        nats = read_nats(setting.lms.config, params, reader, tokens, read, batch)
        part = one.take(min(past, len(one))).bytes
        found[arm] = float(nats[at].sum(dtype=np.float64)), part["latents"] + part["labels"]
    return found


def _flops(setting: tasks.Setting, options, arm: str, adapters: Adapters | None = None) -> float:
    """Operations per scored token: the language model reads its positions once a segment; latents
    are written once and rebuilt for each segment's pages."""
    positions, config = setting.positions, setting.lms.config
    segment, span = paged.segment_of(positions), tasks.spans(setting, options)[0]
    short = {"nothing": segment, "half": positions - span * options.pages}
    short |= dict.fromkeys(("read_only", "read_only_elsewhere", "read_near"), segment)
    read = short.get(arm, positions)
    work = lm.forward_flops(config, read) * read / segment
    if not arm.startswith(("latents", "read")):
        return work
    model = setting.bank.model
    parts = speed.forward_flops(model)
    decoder = parts["decoder"] + parts["vocabulary"] + parts["bottleneck"] / 2
    encoder = parts["encoder"] + parts["bottleneck"] / 2
    experts = min(len(setting.bank.names), memory.CANDIDATES)
    routed = experts * (parts["encoder"] + parts.get("prediction", 0.0))
    if adapters and arm.startswith("read"):
        # The state is z alone: keys and values are made of it anew for each segment.
        past = (positions - segment) // model.window if arm == "read_near" else adapters.past
        sizes = (config, model.latents, model.d_latent, past)
        each, project = latent_reader.forward_flops(*sizes)
        read_work = (each * read + project * past) / segment
        return work + read_work + (routed + encoder) / model.window
    written = (routed + encoder + decoder) / model.window
    return work + written + options.pages * decoder / segment
