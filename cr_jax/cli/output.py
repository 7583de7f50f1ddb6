"""What the commands print: lines on stdout, one line per problem on stderr."""

import contextlib
import math
import sys


def print_line(line: str) -> None:
    """Writes one line to stdout at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def complain(message: object) -> int:
    """One line on stderr, without control characters: it may name a file; -> exit code 2."""
    with contextlib.suppress(OSError):
        print("cr-jax:", printable(" ".join(str(message).split("\n"))), file=sys.stderr)
    return 2


def p_text(p: float) -> str:
    """A p-value with three decimals; - where there is none."""
    return "-" if math.isnan(p) else f"{p:.3f}"


def printable(name: str) -> str:
    """`name` on one line and without control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
