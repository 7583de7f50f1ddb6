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
    return _bits(_found())


@table("latent-memory-read")
def read_by_adapters() -> str:
    """The same where adapters read latents."""
    found = read("latent_memory_reader.json")
    return _bits(found, ("nothing", "half", "sliding", "ids", "latents_bfloat16"))


def _bits(found: dict[str, Any], others: tuple[str, ...] = ()) -> str:
    """Rows of all arms; or of `others`, of adapters and of the whole past's keys and values."""
    kept = lambda arm: not others or arm in others or arm.startswith(("read", "full"))
    rows = [
        [
            NAMES[arm],
            f"{row['state_bytes']:,}",
            None if row["flops_per_token"] is None else f"{row['flops_per_token'] / 1e6:,.1f} M",
            decimal(row["bpb"], 4),
        ]
        for arm, row in found.get("bits_per_byte", {}).items()
        if kept(arm)
    ]
    return markdown(["what a model is given", "bytes kept", "FLOPs a token", "bits/byte"], rows)
