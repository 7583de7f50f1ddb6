"""What the commands print: lines on stdout, one line per problem on stderr."""

import math
import sys

from cr_jax import errors
from cr_jax.errors import printable as printable  # for the commands


def print_line(line: str) -> None:
    """Writes one line to stdout at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_bytes(line: bytes) -> None:
    """As `print_line`, of UTF-8 whatever encoding stdout has."""
    if (raw := getattr(sys.stdout, "buffer", None)) is None:
        return print_line(line.decode("utf-8"))
    sys.stdout.flush()
    raw.write(line + b"\n")
    sys.stdout.flush()


def complain(message: object) -> int:
    """One line on stderr, without control characters: it may name a file; -> exit code 2."""
    return errors.complain("cr-jax", message)


def p_text(p: float) -> str:
    """A p-value with three decimals; - where there is none."""
    return "-" if math.isnan(p) else f"{p:.3f}"
