"""A spool gives a document's blocks as often as they are asked for."""

import itertools

import numpy as np
import pytest

from cr_jax.data import spool
from cr_jax.data.spool import Spool
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError


def blocks(drawn, count=6):
    for i in range(count):
        drawn.append(i)
        rows = 3 if i < count - 1 else 1
        tokens = np.full((rows, 4), i, np.int32)
        yield Windows(tokens, tokens > 0, np.full(rows, 10 + i))


def ids(found):
    return [
        (b.tokens[0, 0].item(), len(b), bool(b.mask.all()), b.document[0].item()) for b in found
    ]


@pytest.mark.parametrize("most", [1 << 20, 100])
def test_every_loop_gives_the_same_blocks_and_draws_no_more_than_it_needs(monkeypatch, most):
    monkeypatch.setattr(spool, "MOST", most)
    whole, drawn = ids(blocks([])), []
    with Spool(blocks(drawn)) as text:
        assert drawn == []
        assert ids(itertools.islice(text, 2)) == whole[:2] and drawn == [0, 1]
        # Two loops at once, one ahead of the other.
        slow, fast = iter(text), iter(text)
        assert ids([next(fast) for _ in range(4)]) == whole[:4]
        assert ids([next(slow)]) == whole[:1]
        assert ids(fast) == whole[4:] and ids(slow) == whole[1:]
        assert ids(text) == whole and drawn == list(range(6))
        assert text._file._rolled == (most == 100)


def test_no_room_for_a_temporary_file_is_one_line(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.np, "save", full)
    with Spool(blocks([])) as text, pytest.raises(UserError, match=r"No space left.*TMPDIR"):
        next(iter(text))


@pytest.mark.parametrize("stored", [0, 2, 4, 6])
@pytest.mark.parametrize("done", [0, 2, 4])
def test_the_rest_is_given_once_and_not_stored(monkeypatch, stored, done):
    whole, added, add = ids(blocks([])), [], Spool._add
    monkeypatch.setattr(Spool, "_add", lambda self, block: (added.append(0), add(self, block)))
    with Spool(blocks([])) as text:
        ids(itertools.islice(text, stored))
        assert len(added) == stored
        if done <= stored:
            assert ids(text.rest(done)) == whole[done:]
            assert len(added) == stored
            assert ids(itertools.islice(text, stored)) == whole[:stored]
            with pytest.raises(RuntimeError, match="passed by"):
                ids(text)
