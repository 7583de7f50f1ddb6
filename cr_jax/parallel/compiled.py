"""Programs that were compiled earlier, kept where only this user can write.

JAX runs what its cache holds unchecked, so a run's folder, which others may share or send, is no
place for it: they are kept in the user's own cache, `~/.cache/cr-jax/programs`, and in none at all
where somebody else could have put a program there.
"""

import contextlib
import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator

KEPT = 30 * 86_400  # seconds since a program was compiled: the cache would grow without end
ROOT = 0


def folder() -> tuple[str, str]:
    """(folder for compiled programs, why there is none); one of the two is "".

    Without a home folder every start compiles anew.  Makes the folder, for this user alone, and
    deletes from it what is older than `KEPT`, also what a killed process wrote in part.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    place = os.path.join(cache, "cr-jax", "programs")
    if not os.path.isabs(place):  # no home is known: never a folder named ~
        return "", "no home folder is known"
    try:
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, 0o700)
        reason = _reason(os.path.realpath(place))
        if not reason:
            _sweep(place)
    except OSError as error:
        return "", f"{place} cannot be used: {error.strerror}"
    return ("", reason) if reason else (place, "")


def keep() -> str:
    """Lets JAX keep programs in `folder`, unless a folder is set already, by the environment
    variable JAX_COMPILATION_CACHE_DIR or the caller; -> why they are not kept, or ""."""
    import jax

    reason = ""
    if not jax.config.jax_compilation_cache_dir:
        place, reason = folder()
        jax.config.update("jax_compilation_cache_dir", place or None)
    # XLA's own caches would be a folder among the programs, which nobody looks through.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return reason


def _reason(place: str) -> str:
    """Why programs in a folder may not be this user's own; "" where nobody else can write them."""
    above, last = place, ""
    while above != last:
        found = os.stat(above)
        # Others may write in /tmp, where they cannot rename what is not theirs.
        sticky = above != place and found.st_mode & stat.S_ISVTX
        if not _ours(found) or (_open_to_others(found) and not sticky):
            return _told(above)
        above, last = os.path.dirname(above), above
    closed = not os.stat(place).st_mode & 0o077  # nobody else can enter, whatever files allow
    for path, found in _entries(place):
        if not stat.S_ISREG(found.st_mode):
            return f"{path} is no file, and only compiled programs belong there: delete it"
        if not _ours(found):
            return _told(path)
        if not closed and _open_to_others(found):
            return _told(path)
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"


def _ours(found: os.stat_result) -> bool:
    return found.st_uid in (os.geteuid(), ROOT)


def _open_to_others(found: os.stat_result) -> bool:
    """Whether somebody else can write it; a group that has the user's own name is the user's."""
    if found.st_mode & stat.S_IWOTH:
        return True
    if not found.st_mode & stat.S_IWGRP or found.st_gid == ROOT:
        return False
    try:
        group = grp.getgrgid(found.st_gid)
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return True
    return group.gr_name != name or any(member != name for member in group.gr_mem)


def _told(path: str) -> str:
    return (
        f"{path} is somebody else's, or others can write it: delete {path} or take their right "
        "to write (chmod go-w), or name a folder of your own in XDG_CACHE_HOME"
    )


def _sweep(place: str) -> None:
    oldest = time.time() - KEPT
    for path, found in _entries(place):
        if found.st_mtime < oldest:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _entries(place: str) -> Iterator[tuple[str, os.stat_result]]:
    """What lies in the folder; another process may delete from it meanwhile."""
    with os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield entry.path, entry.stat(follow_symlinks=False)
