"""Where the parts of a training state lie: path patterns -> axes of the mesh, and one fallback.

Sharding stays out of the models: a leaf is recognised by its path in the state, the optimiser's
moments by the path of the parameter that they mirror.  Not in the paper.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "expert")
ROWS = ("data", "fsdp")  # the axes that split a batch's rows
SMALL = 1 << 14  # numbers of one expert's leaf up to which every device holds all of it

# The first pattern found in a leaf's path says which of its axes "fsdp" splits, counted from the
# end.  Anything else, and an axis that does not divide, is the fallback's: the largest axis that
# does.
RULES: tuple[tuple[str, int], ...] = (
    # [V, D] by width: each device reads its columns of all rows, and one exchange hands every
    # device the whole rows of its own windows; split by V, all rows would be summed over devices.
    (r"(^|/)embedding$", -1),
    # [blocks, ..., in, out] never by block: a loop over blocks would collect all to read one.
    # The feed-forward width: it is the longer side, over which Muon's products contract.
    (r"/blocks/.*/(qkv|out|up)$", -1),
    (r"/blocks/.*/down$", -2),
)


def shardings(
    mesh: Mesh, state: Any, rules: Sequence[tuple[str, int]] = RULES, small: int = SMALL
) -> Any:
    """A tree like `state` (leaves [E, ...], arrays or shapes) of `NamedSharding`s.

    Experts over "expert"; leaves of more than `small` numbers per expert also over "fsdp".
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, x: NamedSharding(
            mesh, spec(name_of(path), x.shape, mesh.shape["fsdp"], rules, small)
        ),
        state,
    )


def spec(
    path: str,
    shape: Sequence[int],
    fsdp: int,
    rules: Sequence[tuple[str, int]] = RULES,
    small: int = SMALL,
) -> PartitionSpec:
    """How one leaf [E, ...] is split over `fsdp` devices; `path` as `name_of` gives it.

    >>> tuple(spec("params/params/embedding", (1, 50304, 512), 8))
    ('expert', None, 'fsdp')
    >>> tuple(spec("params/params/bottleneck/fold", (1, 4096, 512), 8))
    ('expert', 'fsdp')
    """
    names: list[str | None] = ["expert"] + [None] * (len(shape) - 1)
    if fsdp > 1 and math.prod(shape[1:]) > small:
        fits = [i for i in range(1, len(shape)) if shape[i] % fsdp == 0]
        ruled = next(
            (len(shape) + axis for pattern, axis in rules if re.search(pattern, path)), None
        )
        if ruled in fits:
            names[ruled] = "fsdp"
        elif fits:
            names[max(fits, key=lambda i: shape[i])] = "fsdp"
    while names[-1] is None:
        names.pop()
    return PartitionSpec(*names)


def name_of(path: tuple) -> str:
    """A key path of `jax.tree_util` -> "params/params/encoder/blocks/attention/qkv"."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
