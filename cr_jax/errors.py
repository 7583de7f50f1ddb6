"""The one exception that a user is meant to read, and the one failure that is nobody's here."""

import re

_TRANSPORT = re.compile(r"gloo|nccl|coordination|distributed service", re.IGNORECASE)
_GONE = re.compile(
    r"(closed|reset) by peer|broken pipe|socket closed|connection refused|timed? ?out|unhealthy"
    r"|remote (process|error)|unavailable|deadline_exceeded", re.IGNORECASE)


class UserError(ValueError):
    """Bad input: its message is one line that says what is wrong and what to change.

    `main.py` and `cr-jax` print the message without a traceback and exit with status 2.

    >>> try:
    ...     raise UserError("give a number")
    ... except ValueError as error:
    ...     print(error)
    give a number
    """


def lost_peer(error: BaseException | None) -> str | None:
    """What a collective said that failed because another process of the run is gone, in one line.

    None for any other error.  JAX has no type for it: it raises `JaxRuntimeError` or `ValueError`
    with the transport's words.
    """
    while error is not None:
        text = str(error)
        if _TRANSPORT.search(text) and _GONE.search(text):
            return " ".join(text.split())[:200]
        error = error.__cause__ or error.__context__
    return None
