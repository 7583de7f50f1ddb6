"""The group of a record: repository, page or file, which a split never tears apart.

Not in the paper.
"""

from collections.abc import Mapping
from typing import Any

from cr_jax.errors import UserError

# The usual names, the larger group before what lies in it: a repository holds files of many paths.
KEYS = (
    "group",
    "repo",
    "repo_name",
    "repository",
    "repository_name",
    "repo_full_name",
    "full_name",
    "max_stars_repo_name",
    "repo_url",
    "repository_url",
    "project",
    "package",
    "url",
    "uri",
    "source",
    "path",
    "file_path",
    "filepath",
    "file_name",
    "filename",
    "file",
)
_INSIDE = ("", "meta.", "metadata.")  # where data sets keep them


def group_of(record: Mapping[str, Any], key: str = "", where: str = "a record") -> str | None:
    """A record's group: what it has under `key`, else under the first of `KEYS` that it has.

    A key with a dot also looks inside: `meta.repo`.  Of `source` only addresses count: most data
    sets write their own name there, which would make one group of all of them.  None when the
    record has none of the keys; `UserError`, which begins with `where`, when it lacks `key`.
    """
    if key:
        text = _text(_value(record, key))
        if text is None:
            raise UserError(
                f"{where} has no field {key!r} to group by; name another "
                "(config.data.group_key, or &group=KEY behind a source's field)"
            )
        return text
    for name in KEYS:
        for inside in _INSIDE:
            text = _text(_value(record, inside + name))
            if text is not None and (name != "source" or "://" in text):
                return text
    return None


def _value(record: Mapping[str, Any], key: str) -> Any:
    if key in record:
        return record[key]
    first, dot, rest = key.partition(".")
    inside = record.get(first) if dot else None
    return _value(inside, rest) if isinstance(inside, Mapping) else None


def _text(value: Any) -> str | None:
    """A name or a number as a string; None for what names no group."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return (
        str(value)
        if value is not None and str(value) and not isinstance(value, Mapping | list | bool)
        else None
    )
