"""Names of experts, and so of domains: safe as folders and as words of a command line."""

import re
from collections.abc import Iterable

from cr_jax.errors import UserError

LONGEST = 100  # letters of a name
RULE = f"use up to {LONGEST} letters, digits and _ . - without a leading dot, and not 'unknown'"
RANDOM = "random_tokens"  # the report's name for windows of random ids
_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}", re.ASCII)


def check_name(name: str) -> str:
    """Returns `name`; `UserError` unless it is safe as a folder and cannot be misread."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "unknown":
        raise UserError(f"bad expert name {shown(name)}: {RULE}")
    return name


def check_domains(trained: Iterable[str], unseen: Iterable[str]) -> None:
    """`UserError` unless every domain can have an expert, or a line in the report, of its name.

    The names of two domains must differ in more than their letters' case: not every file system
    tells such folders apart.
    """
    seen: dict[str, str] = {}
    for group, names in (("domains", trained), ("unseen", unseen)):
        for name in names:
            try:
                check_name(name)
            except UserError:
                raise UserError(
                    f"config.data.{group} has a domain named {shown(name)}, which no "
                    f"expert can be: {RULE}"
                ) from None
            if name.lower() == RANDOM:
                raise UserError(
                    f"config.data.{group}.{name}: this name is kept for the windows of "
                    "random tokens in the report; choose another"
                )
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise UserError(
                    f"config.data: the domains {other} and {name} differ only in case; rename one"
                )


def shown(name: object) -> str:
    """At most 60 characters of a name, quoted and escaped."""
    text = ascii(name)
    return text if len(text) <= 60 else f"{text[:57]}..."
