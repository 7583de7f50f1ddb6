"""Tables of latents as memory."""

from collections.abc import Iterable
from typing import Any

from benchmarks.tables.registry import RESULTS, decimal, markdown, percent, read, table

NAMES = {
    "nothing": "nothing",
    "half": "the last tokens, without pages in their place",
    "sliding": "the last tokens",
    "random_pages": "pages drawn at random",
    "ids": "pages of ids",
    "latents_bfloat16": "pages of latents, bfloat16",
    "latents_bfloat16_bare": "pages of latents, bfloat16, uncorrected",
    "latents_int8": "pages of latents, int8",
    "latents_int8_bare": "pages of latents, int8, uncorrected",
    "latents_int4": "pages of latents, int4",
    "latents_int4_bare": "pages of latents, int4, uncorrected",
    "read": "the last tokens, and latents before them read by an adapter, bfloat16",
    "read_int8": "the same, int8",
    "read_int4": "the same, int4",
    "read_elsewhere": "the last tokens, and latents of another place of the document",
    "read_only": "latents before the segment read by an adapter",
    "read_only_elsewhere": "the same, latents of another place of the document",
    "read_near": "latents of the last tokens' windows alone, read by an adapter",
    "full_kv": "keys and values of all (its state alone)",
}


def _found() -> dict[str, Any]:
    """The run at full size, or until there is one the quick one."""
    full = (RESULTS / "latent_memory.json").exists()
    return read("latent_memory.json" if full else "latent_memory_quick.json")


def _shown(arms: Iterable[str]) -> list[str]:
    """int8 has the figures of int4 and bfloat16 between which it stands."""
    return [arm for arm in arms if "int8" not in arm]


@table("latent-memory-recall")
def recall() -> str:
    """Ids that come back from the longest context, over all depths and kinds."""
    found = _found()
    arms = found["recall_by_tokens"][str(found["tokens"])]
    kinds = list(found["recall_by_kind"])
    rows = [
        [
            NAMES[arm],
            percent(row["in_pages"]),
            percent(row["copied"]),
            percent(row["spoken"]),
            *(percent(found["recall_by_kind"][kind][arm]["copied"]) for kind in kinds),
        ]
        for arm in _shown(arms)
        for row in [arms[arm]]
    ]
    header = ["what a model is given before the question", "id is in it", "copied", "spoken"]
    return markdown([*header, *(f"copied: {kind}" for kind in kinds)], rows)


@table("latent-memory-bits")
def bits() -> str:
    """Bits/byte of segments of long documents."""
    found = _found().get("bits_per_byte", {})
    rows = [
        [NAMES[arm], *_taken(found[arm]), decimal(found[arm]["bpb"], 4)] for arm in _shown(found)
    ]
    return markdown(["what a model is given", "bytes kept", "FLOPs a token", "bits/byte"], rows)


@table("latent-memory-read")
def read_by_adapters() -> str:
    """Bits/byte where adapters read latents: of novels, and of code by another expert."""
    both = [read(f"latent_memory_reader{x}.json")["bits_per_byte"] for x in ("", "_code")]
    arms = ("nothing", "sliding", "latents_bfloat16", *(a for a in _shown(both[0]) if "read" in a))
    rows = [
        [NAMES[arm], *_taken(both[0][arm]), *(decimal(found[arm]["bpb"], 4) for found in both)]
        for arm in arms
    ]
    header = ["what a model is given", "bytes kept", "FLOPs a token", "bits/byte, novels", "code"]
    return markdown(header, rows)


def _taken(row: dict[str, Any]) -> list[str | None]:
    work = row["flops_per_token"]
    return [f"{row['state_bytes']:,}", None if work is None else f"{work / 1e6:,.1f} M"]
