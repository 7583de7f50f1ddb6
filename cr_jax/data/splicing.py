"""One more field in a JSON line, whose own bytes stay as they are.  Not in the paper.

To read a record and write it again would change it: a number of many digits, a number too large
for a float, half a surrogate pair.
"""

import json
from typing import Any

from cr_jax.errors import STEERING, UserError


def check(line: bytes, name: str, where: str) -> None:
    """`UserError`, which begins with `where`, unless the field `name` can be added to a line."""
    try:
        record = _STRICT.decode(line.decode("utf-8").strip(_SPACE))
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not JSON: bad UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error.msg} at character {error.pos + 1}") from None
    except _NoNumber as error:
        raise UserError(f"{where} is not JSON, which has no {error}: write null") from None
    except RecursionError:
        raise UserError(f"{where} is nested too deeply to be written again") from None
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object")
    if name in record:
        raise UserError(f"{where} has a field {name!r} already: rename it")


def spliced(line: bytes, name: str, value: Any) -> bytes:
    """A line that `check` let pass, without its end, and with one more field at its end.

    Characters that steer a terminal are written as JSON escapes, which are read as the same.
    """
    text = line.decode("utf-8").strip(_SPACE).replace("\r", " ")
    head = text[:-1].rstrip(_SPACE)
    comma = "" if head == "{" else ","
    head = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", head)
    added = f"{json.dumps(name)}:{json.dumps(value, allow_nan=False)}"
    return f"{head}{comma}{added}}}".encode()


class _NoNumber(Exception):
    """`NaN` and its like, which Python reads."""


def _no_number(word: str):
    raise _NoNumber(word)


_SPACE = " \t\r\n"  # of JSON
_STRICT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_number)
