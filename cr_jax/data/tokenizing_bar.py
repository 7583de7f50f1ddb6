"""How far tokenising is, on stderr where that is a terminal: tokens per second and time left."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from cr_jax.data import file_position

DELAY = 1.0  # seconds without a word: small texts are done by then


class TokenizingBar:
    """`with TokenizingBar(sizes, limits) as bar:` around the making of several corpora.

    A corpus is as far as its files are read, or its limit of tokens is reached if that is further.

    Args:
        sizes: bytes on the disk behind each corpus.
        limits: where each corpus is cut, tokens or None.
    """

    def __init__(self, sizes: Sequence[int], limits: Sequence[int | None]):
        self._sizes, self._limits = sizes, limits
        # A token takes about a byte of a compressed file: enough to weigh corpora by.
        self._weights = [
            min(size, limit or size) or 1 for size, limit in zip(sizes, limits, strict=True)
        ]
        self._bar, self._done, self._read = None, 0, 0
        self.tokens, self._began = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the bar was made."""
        return max(1e-3, time.monotonic() - self._began)

    def __enter__(self) -> "TokenizingBar":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=sum(self._weights),
                desc="tokenise",
                leave=False,
                delay=DELAY,
                mininterval=DELAY / 10,
                file=sys.stderr,
                bar_format=("{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"),
            )
        return self

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.close()

    @contextlib.contextmanager
    def corpus(self, i: int, name: str) -> Iterator[Callable[[int, int], None]]:
        """`with bar.corpus(i, name) as on_tokens:` makes corpus i; `on_tokens(new, so far)`."""
        self._read = 0

        def on_bytes(count: int) -> None:
            self._read += count
            show(self._read / max(1, self._sizes[i]))

        def on_tokens(new: int, total: int) -> None:
            self.tokens += new
            if self._bar:
                self._bar.set_postfix_str(
                    f"{name}, {self.tokens / self.seconds:,.0f} tokens/s", refresh=False
                )
            if self._limits[i]:
                show(total / self._limits[i])

        def show(share: float) -> None:
            if self._bar:
                at = self._done + min(1.0, share) * self._weights[i]
                self._bar.update(max(0.0, at - self._bar.n))

        with file_position.told(on_bytes):
            yield on_tokens
        show(1.0)
        self._done += self._weights[i]

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Lines can be printed in this block: the bar makes room for them."""
        if self._bar is None:
            yield
            return
        with self._bar.external_write_mode(file=sys.stdout):
            yield
