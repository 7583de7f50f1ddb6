"""A message for the user is one line that steers no terminal."""

import contextlib
import gc
import weakref

import pytest

from cr_jax.data import documents
from cr_jax.errors import UserError, turning


def test_a_message_is_one_line_of_characters():
    for odd in ("\n", "\r", "\x1b[2J", "\x85", "\u2028", "\udcff", "\u202e", "\0"):
        message = str(UserError(f"a{odd}b: ä 中 'c'"))
        assert message.isprintable() and message.startswith("a\\")
        assert message.endswith("b: ä 中 'c'") and message.encode()
    assert str(UserError("nothing odd")) == "nothing odd" and str(UserError()) == ""


def test_names_of_files_do_not_break_the_line(tmp_path):
    for name in ("a\nb.jsonl", "\x1b[31m.jsonl", "\udcff.jsonl"):
        (tmp_path / name).write_bytes(b"no json\n")
        with pytest.raises(UserError, match="line 1 is not JSON") as error:
            list(documents(f"jsonl:{tmp_path / name}"))
        assert str(error.value).isprintable()


def test_turning_raises_what_is_told_from_the_error():
    told = lambda error: UserError(f"no {error}") if isinstance(error, OSError) else None
    with pytest.raises(UserError, match="no disk") as caught, turning(told):
        raise OSError("disk")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(KeyError), turning(told):
        raise KeyError("disk")
    with turning(told):
        pass


def test_turning_leaves_errors_of_other_kinds():
    told = lambda error: UserError(f"no {error}")
    for kind in (FileNotFoundError, TypeError):  # an OSError too, and a kind of its own
        with pytest.raises(UserError, match="no disk"), turning(told, OSError, TypeError):
            raise kind("disk")
    with pytest.raises(ValueError, match="disk") as caught, turning(told, OSError, TypeError):
        raise ValueError("disk")
    assert type(caught.value) is ValueError


def test_an_error_that_was_turned_keeps_nothing():
    class Held:
        pass

    def turned():
        held = Held()
        seen.append(weakref.ref(held))
        with turning(lambda error: UserError(f"no {error}")):
            raise OSError("disk")

    seen = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(UserError):
                turned()
        assert [ref() for ref in seen] == [None] * 3
    finally:
        gc.enable()
