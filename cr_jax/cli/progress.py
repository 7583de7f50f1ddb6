"""How far a file is, on stderr where that is a terminal."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from cr_jax.cli.output import printable

DELAY = 1.0  # seconds without a word: most files are done by then


@contextlib.contextmanager
def progress(name: str, tokenizer: Any, max_windows: int = 0) -> Iterator[Callable[[Any], None]]:
    """Gives `on_block(windows)`, which moves a bar; nothing is written where stderr is a file.

    The bar counts a file's bytes, since its windows are unknown until it is read, and says how
    many windows are done; with `max_windows`, it counts windows.
    """
    if not sys.stderr.isatty():
        yield lambda block: None
        return
    from tqdm import tqdm

    known = os.path.getsize(name) if os.path.isfile(name) else None
    total, unit = (max_windows, " windows") if max_windows else (known, "B")
    windows = 0
    with tqdm(
        total=total,
        unit=unit,
        unit_scale=not max_windows,
        desc=printable(name)[-40:],
        leave=False,
        delay=DELAY,
        mininterval=DELAY / 10,
        file=sys.stderr,
    ) as bar:

        def on_block(block) -> None:
            nonlocal windows
            windows += len(block)
            if max_windows:
                bar.update(len(block))
                return
            bar.set_postfix_str(f"{windows:,} windows", refresh=False)
            bar.update(int(tokenizer.token_bytes[block.tokens[block.mask]].sum()))

        yield on_block
        # Tokens are fewer bytes than the file where that has CR LF, or is in UTF-16.
        bar.miniters = bar.mininterval = 0
        bar.update(0 if total is None else max(0, total - bar.n))
