"""What the runs in results/ stored: sums of residuals per set, rule and window.

Letters: E experts, N windows.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cr_jax.errors import UserError
from cr_jax.studies.packed_sums import unpack


def record_of(run: str) -> dict:
    """What a run says of itself.  `UserError` when its .json or .npz is missing or damaged."""
    try:
        record = json.loads(Path(run + ".json").read_text())
        record["spec"]["domains"], record["spec"]["model"]["window"]
        return record
    except (OSError, ValueError, KeyError, TypeError):
        raise _missing(run) from None


def read_run(run: str, names: Sequence[str], without: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """A run's sums, less the rows and the windows of the domains left out.  `UserError` as in
    `record_of`."""
    rows = [i for i, name in enumerate(names) if name not in without]
    try:
        # numpy leaves a file that it opened itself and cannot read open.
        with open(run + ".npz", "rb") as file, np.load(file, allow_pickle=False) as stored:
            return {
                k: v[rows] if len(v) == len(names) else v
                for k, v in unpack(stored).items()
                if k.partition(":")[0].split("/", 1)[1] not in without
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise _missing(run) from None


def _missing(run):
    return UserError(f"there is no run {run}: its .json and .npz, undamaged, are needed")


def rules_of(run: str) -> tuple[str, ...]:
    """Names of the rules that a run was scored by, but those that scored a sample of the positions.
    `UserError` as in `record_of`."""
    rules = record_of(run)["spec"]["rules"]
    return tuple(name for name, settings in rules.items() if not settings.get("passes"))


def residual(stored, key: str, rule: str, of: str = "") -> np.ndarray:
    """Sums [E, N] in nats of one set under a rule; several rules are added.

    of: "generalist" for that one's, [1, N].
    """
    return np.sum([_part(stored, key, r, of) for r in rule.split("+")], 0, dtype=np.float64)


def means(
    names: Sequence[str],
    stored: Mapping[str, np.ndarray],
    rule: str,
    split: str,
    length: int,
    rules: Sequence[str] | None = None,
) -> dict[str, Float[np.ndarray, "E N"]]:
    """{name: nats/token [E, N]} of the windows of `length` tokens in the sets `split`/name.

    rules: `rules_of` the run.  `UserError` for a rule that the run was not scored by.
    """
    if rules is not None and (missing := set(rule.split("+")) - set(rules)):
        raise UserError(
            f"the run was not scored by {', '.join(sorted(missing))}; it has {', '.join(rules)}"
        )
    return {n: residual(stored, f"{split}/{n}", rule) / length for n in names}


def _part(stored, key: str, rule: str, of: str = "") -> np.ndarray:
    return stored[f"{key}:{rule}:{of or ('nll' if rule == 'seen' else 'residual')}"]
