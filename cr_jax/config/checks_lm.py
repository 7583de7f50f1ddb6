"""The checks of what is trained beside experts: language models, rivals of a growing bank."""

from collections.abc import Iterable
from typing import Any

from cr_jax.config.names import shown
from cr_jax.config.schema import RIVALS, BranchConfig, ContinualConfig, LmConfig, ModularConfig
from cr_jax.errors import UserError

# Names in config.modular.arms, beside partition_K.
ARMS = ("dense", "dense_large", "noise", "random_split")


def check_numbers(where: str, settings: Any) -> None:
    """Raises `UserError` for a number of the group that is negative or not finite."""
    for name, value in vars(settings).items():
        # `not >=` also catches what is not a number.
        if isinstance(value, (int, float)) and not 0 <= value < float("inf"):
            raise UserError(f"{where}.{name} must be a finite number, 0 or more; got {value}")


def check_lm(lm: LmConfig, where: str = "config.lm") -> None:
    """Raises `UserError` when the sizes cannot make a language model."""
    for name in ("d_model", "heads", "d_ff", "blocks"):
        if getattr(lm, name) < 1:
            raise UserError(f"{where}.{name} must be at least 1, got {getattr(lm, name)}")
    for name, value in vars(lm).items():
        if type(value) is int and not 0 <= value <= 1 << 24:
            raise UserError(f"{where}.{name}={value} must lie in [0, {1 << 24:,}]")
    if lm.blocks > 1000:
        raise UserError(f"{where}.blocks: more than 1,000 blocks cannot be meant")
    if lm.d_model % (2 * lm.heads):
        raise UserError(
            f"{where}.d_model={lm.d_model} must be a multiple of 2 x heads={2 * lm.heads}: every "
            "head needs an even width for its rotary positions"
        )
    if lm.kv_heads and lm.heads % lm.kv_heads:
        raise UserError(
            f"{where}.kv_heads={lm.kv_heads} must divide heads={lm.heads}; 0 gives "
            "every query head keys and values of its own"
        )


def check_modular(modular: ModularConfig, domains: Iterable[str]) -> None:
    """Raises `UserError` for language models that cannot be trained like that."""
    where = "config.modular"
    check_numbers(where, modular)
    for name in ("window", "seed_batch", "branch_batch"):
        if getattr(modular, name) < 1:
            raise UserError(f"{where}.{name} must be at least 1, got {getattr(modular, name)}")
    for name in ("window", "seed_batch", "branch_batch", "looks"):
        if getattr(modular, name) > 1 << 24:
            raise UserError(
                f"{where}.{name}={getattr(modular, name)} is more than {1 << 24:,}: that cannot be "
                "meant"
            )
    if max(modular.seed_tokens, modular.branch_tokens) > 1 << 62:
        raise UserError(f"{where}: seed_tokens and branch_tokens must be at most {1 << 62:,}")
    if bool(modular.seed_tokens) != bool(modular.branch_tokens):
        raise UserError(
            f"{where}: give both seed_tokens and branch_tokens, or neither for a run without "
            "language models"
        )
    if modular.share > 1:
        raise UserError(f"{where}.share must lie in [0, 1], got {modular.share}")
    for name, branch in modular.domains.items():
        if name not in set(domains):
            raise UserError(
                f"{where}.domains.{shown(name)[1:-1]} is no domain of config.data.domains"
            )
        _check_branch(f"{where}.domains.{name}", branch)
        if branch.batch != -1:
            raise UserError(
                f"{where}.domains.{name}.batch: all branches of a step have one batch; set "
                f"{where}.branch_batch, or the batch of a try"
            )
    for name, branch in modular.tries.items():
        if not name.isidentifier():  # of a folder
            raise UserError(f"{where}.tries: a try is named by one word, not {shown(name)}")
        _check_branch(f"{where}.tries.{name}", branch)
        if not branch.batch:
            raise UserError(f"{where}.tries.{name}.batch must be at least 1, or -1")
    if modular.tries and not modular.looks:
        raise UserError(f"{where}.tries are compared by looks at valid: set {where}.looks above 0")
    for share in modular.averages:
        if not 0 < share <= 1:
            raise UserError(f"{where}.averages: a share must lie in (0, 1], got {share}")
    for name in modular.arms:
        if name not in ARMS and not partition_parts(name):
            raise UserError(
                f"{where}.arms: unknown arm {shown(name)}; there are {', '.join(ARMS)} and "
                "partition_K with K from 2 to 1000"
            )


def check_continual(continual: ContinualConfig) -> None:
    """Raises `UserError` for rivals that are not there or cannot be trained like that."""
    where = "config.continual"
    check_numbers(where, continual)
    for name in continual.rivals:
        if name not in RIVALS:
            raise UserError(
                f"{where}.rivals: unknown rival {shown(name)}; there are {', '.join(RIVALS)}"
            )
    if not 1 <= continual.replay_windows <= 1 << 24:
        raise UserError(
            f"{where}.replay_windows={continual.replay_windows} must lie in [1, {1 << 24:,}]"
        )
    if continual.replay_share >= 1:
        raise UserError(
            f"{where}.replay_share must be below 1, got {continual.replay_share}: with stored rows "
            "alone nothing new is learnt"
        )


def _check_branch(where: str, branch: BranchConfig) -> None:
    for field, value in vars(branch).items():
        most = {"share": 1.0, "tokens": 1 << 62, "batch": 1 << 24}.get(field, float("inf"))
        if value != -1 and not (0 <= value <= most and value < float("inf")):
            raise UserError(
                f"{where}.{field} must be -1 or 0 or more"
                + (", at most 1" if field == "share" else "")
                + f"; got {value}"
            )


def partition_parts(arm: str) -> int:
    """ "partition_8" -> 8; 0 for the name of another arm."""
    name, _, parts = arm.rpartition("_")
    whole = name == "partition" and parts.isascii() and parts.isdecimal() and len(parts) < 5
    return int(parts) if whole and 2 <= int(parts) <= 1000 else 0
