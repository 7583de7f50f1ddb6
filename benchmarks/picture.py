"""Pictures beside the JSON of results that they are drawn of; matplotlib is an extra."""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cr_jax.errors import UserError, complain
from cr_jax.host.files import write_whole


def drawn(
    says: str,
    record: str,
    key: str,
    by: str,
    draw: Callable[..., Any],
    arguments: Sequence[str] | None = None,
) -> int:
    """`RECORD.json` on the command line -> RECORD.png by `draw(plt, found)`, which gives a figure;
    the exit status.

    says: what the picture shows; record: the file's usual name; key: what it must hold, as `by`
    writes it.  Bad input is one line on stderr and 2.
    """
    p = argparse.ArgumentParser(description=says)
    p.add_argument("record", help=record)
    place = Path(p.parse_args(arguments).record)
    try:
        found = _read(place, key, by)
        write_whole(place.with_suffix(".png"), _png(draw, found))
    except UserError as error:
        complain("error", error)
        return 2
    return 0


def _read(place: Path, key: str, by: str) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text())
        found[key]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{place} holds no {key}: write it by {by}") from error
    return found


def _png(draw: Callable[..., Any], found: dict[str, Any]) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, data = draw(plt, found), io.BytesIO()
    figure.savefig(data, format="png", dpi=140, metadata={"Software": None})
    plt.close(figure)
    return data.getvalue()
