"""A bank in three lines, for people at a prompt."""

from typing import TYPE_CHECKING

from cr_jax.scoring.wording import wording

if TYPE_CHECKING:
    from cr_jax.bank.bank import ExpertBank

MOST = 12  # names that are shown


def lines(bank: "ExpertBank") -> str:
    """How many experts and which, what a window is, and what a residual is."""
    few = ", ".join(bank.names[:MOST]) or "none yet"
    more = f" and {len(bank.names) - MOST} more" if len(bank.names) > MOST else ""
    model, where = bank.model, bank.folder or "memory"
    words = wording(bank.scoring)
    return (
        f"ExpertBank of {len(bank.names)} experts in {where}: {few}{more}\n"
        f"  {model.window} tokens of {bank.tokenizer.vocab_size:,} -> {model.latents} latents of "
        f"{model.d_latent}; language models: {'no' if bank.lm is None else bank.lm.kind}\n"
        f"  a residual is {words.cost}"
    )
