"""What Orbax needs around it: quiet when a save fails, and folders whose names it understands."""

import functools
import logging as py_logging
import re
import shutil
import sys
import tempfile
import threading
import weakref
from pathlib import Path

from cr_jax.errors import UserError

_PLAIN = re.compile(r"(?!/(gs|s3|az|hf)/)[\w./@+,=:-]+", re.ASCII)


def plain_place(folder: Path, owner: object) -> Path:
    """A path to the folder that Orbax and TensorStore take as it is.

    They expand `[`, `*` and `?` in listings, take /gs/ for a cloud's storage and need UTF-8:
    elsewhere they get a link of a plain name, which lasts as long as `owner`.
    """
    if _PLAIN.fullmatch(str(folder)):
        return folder
    try:
        beside = Path(tempfile.mkdtemp(prefix="cr_jax-"))
        weakref.finalize(owner, shutil.rmtree, beside, ignore_errors=True)
        (beside / "checkpoints").symlink_to(folder, target_is_directory=True)
    except OSError as error:
        raise UserError(
            f"the workdir's name needs a link in {tempfile.gettempdir()}, which "
            f"cannot be made ({error.strerror}): set TMPDIR, or use letters, "
            "digits and . _ - in --workdir"
        ) from None
    if not _PLAIN.fullmatch(str(beside)):
        raise UserError(
            f"neither --workdir nor TMPDIR ({beside.parent}) has a plain name: use "
            "letters, digits and . _ - in one of them"
        )
    return beside / "checkpoints"


@functools.cache
def hush_orbax() -> None:
    """One failed save, which is also raised, would otherwise be told in dozens of tracebacks.

    By Orbax's log and threads, by asyncio of the tasks that Orbax forgot, and by TensorStore, which
    calls back an event loop that is closed by then.
    """
    py_logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    py_logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())
    of_thread, ignored = threading.excepthook, sys.unraisablehook

    def tell_of_thread(failed):
        if not type(failed.thread).__module__.startswith("orbax."):
            of_thread(failed)

    def tell_ignored(failed):
        if str(failed.exc_value) != "Event loop is closed":
            ignored(failed)

    threading.excepthook, sys.unraisablehook = tell_of_thread, tell_ignored
