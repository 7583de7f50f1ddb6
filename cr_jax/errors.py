"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input: its message is one line that says what is wrong and what to change.

    `main.py` and `cr-jax` print the message without a traceback and exit with status 2.
    """
