"""Tables of latents as memory."""

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
    "full_kv": "keys and values of all (its state alone)",
}


def _found() -> dict[str, Any]:
    """The run at full size, or until there is one the quick one."""
    full = (RESULTS / "latent_memory.json").exists()
    return read("latent_memory.json" if full else "latent_memory_quick.json")


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
        for arm, row in arms.items()
    ]
    header = ["what a model is given before the question", "id is in it", "copied", "spoken"]
    return markdown([*header, *(f"copied: {kind}" for kind in kinds)], rows)


@table("latent-memory-bits")
def bits() -> str:
    """Bits/byte of segments of long documents."""
    rows = [
        [
            NAMES[arm],
            f"{row['state_bytes']:,}",
            None if row["flops_per_token"] is None else f"{row['flops_per_token'] / 1e6:,.1f} M",
            decimal(row["bpb"], 4),
        ]
        for arm, row in _found().get("bits_per_byte", {}).items()
    ]
    return markdown(["what a model is given", "bytes kept", "FLOPs a token", "bits/byte"], rows)
