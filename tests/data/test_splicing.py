"""A field is added to a JSON line, and nothing else of it changes."""

import json

import pytest

from cr_jax.data import splicing
from cr_jax.errors import UserError

DIGITS = "1" * 5000
KEPT = [
    '{"n": 12345678901234567890123456789, "x": 1e400, "t": "\\ud800"',
    f'{{"t": "a", "long": {DIGITS}, "again": 1, "again": 2',
    '{ "t" : "é中" , "o": {"route": 1}, "f": 1.10',
]


@pytest.mark.parametrize("head", KEPT)
def test_the_line_stays_as_it_is(head):
    line = f" {head} }} \r\n".encode()
    splicing.check(line, "route", "x:1")
    assert splicing.spliced(line, "route", {"a": 1}).decode() == f'{head},"route":{{"a": 1}}}}'


def test_what_steers_a_terminal_is_escaped_and_reads_the_same():
    record = {"t": "a\x9b\u202eb\x7f", "u": "\u2028"}
    line = json.dumps(record, ensure_ascii=False).encode().replace(b", ", b",\r ")
    splicing.check(line, "route", "x:1")
    out = splicing.spliced(line, "route", None).decode()
    assert out.isprintable() and json.loads(out) == {**record, "route": None}
    assert json.loads(splicing.spliced(b"{}", "a", 1)) == {"a": 1}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"t": "a", "r\\u006fute": 1}', "'route' already"),
        (b'{"t": NaN}', "NaN"),
        (b'{"t": -Infinity}', "-Infinity"),
        (b'{"t": "caf\xe9"}', "UTF-8"),
        (b'{"t": "a",}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"t": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
    ],
)
def test_what_no_field_can_be_added_to(line, says):
    with pytest.raises(UserError, match=says) as told:
        splicing.check(line, "route", "x:1")
    assert str(told.value).startswith("x:1 ") and "\n" not in str(told.value)
