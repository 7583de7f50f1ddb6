"""What a journal's lines can be, and what follows from them."""

import pytest

from cr_jax.continual.evidence import SequentialTest
from cr_jax.continual.history import History

KEY = "0" * 64
DOCUMENT = {
    "event": "document",
    "name": "a",
    "id": KEY,
    "nearest": "digits",
    "known": False,
    "p": 0.01,
    "tokens": 9,
    "calibrated": 100,
}
FOUND = {
    "event": "found",
    "verdict": "new",
    "expert": "new-1",
    "ids": [],
    "start": "noise",
    "steps": 1,
}


@pytest.mark.parametrize(
    "line",
    [
        *({k: v for k, v in DOCUMENT.items() if k != name} for name in DOCUMENT if name != "event"),
        {"event": "document"},
        {**DOCUMENT, "known": "perhaps"},
        {**DOCUMENT, "id": "zz"},
        {**DOCUMENT, "id": 7},
        {**DOCUMENT, "p": "0.1"},
        {**DOCUMENT, "p": float("nan")},
        {**DOCUMENT, "tokens": None},
        {"event": "skipped", "name": "a"},
        {"event": "mounted"},
        {"event": "settled", "name": "a"},
        {"event": "abandoned", "why": "none is pending"},
        {**FOUND, "expert": "../../digits"},
        {**FOUND, "ids": ["1" * 64]},
        {**FOUND, "ids": None},
        {**FOUND, "verdict": "perhaps"},
    ],
)
def test_a_line_that_cannot_be_is_damaged_and_named(line):
    history = History(SequentialTest())
    history.apply(DOCUMENT)
    history.apply({"event": "waiting"})
    with pytest.raises(ValueError, match="can be here"):
        history.apply(line)
    assert history.pending is None and list(history.kept) == [KEY]


def test_a_journal_that_can_be_is_learned():
    history = History(SequentialTest())
    known = {**DOCUMENT, "id": "1" * 64, "known": True, "p": 0.9}
    short = {"event": "document", "name": "b", "id": "2" * 64, "known": None}
    for event in (DOCUMENT, known, short, {"event": "of a later version"}):
        history.apply(event)
    assert len(history.names) == 3 and list(history.kept) == [KEY] and history.tokens == 9
    history.apply({**FOUND, "ids": [KEY]})
    history.apply({"event": "begins", "expert": "new-1", "start": "noise"})
    assert history.pending is not None and history.pending["start"] == "noise"
    history.apply({"event": "abandoned", "expert": "new-1", "why": "too little text"})
    assert history.pending is None and list(history.kept) == [KEY]
    history.apply({**FOUND, "expert": "new-2", "ids": [KEY]})
    history.apply({"event": "mounted", "expert": "new-2"})
    assert not history.kept and history.experts == {"new-1", "new-2"}


def test_a_repeat_alone_makes_no_text_seen():
    history = History(SequentialTest())
    repeated = {"event": "repeated", "name": "copy", "id": KEY}
    history.apply(repeated)
    assert not history.names
    history.apply(DOCUMENT)
    history.apply(repeated)
    assert history.names == {KEY: {"a", "copy"}}
