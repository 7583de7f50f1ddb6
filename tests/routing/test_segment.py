"""A text of two alphabets is cut where they meet; its parts are given back whole, in order."""

import itertools
import json
import sys

import numpy as np
import pytest
import tiny_bank

import cr_jax
from cr_jax.cli import main
from cr_jax.cli import segment as command
from cr_jax.data.windows import windows_of
from cr_jax.errors import UserError
from cr_jax.routing import segment as segment_room
from cr_jax.routing.segment import SegmentOptions, segment, segments, token_costs
from cr_jax.scoring.batching import BatchSizes

QUICK = SegmentOptions(switch=4.0, minimum=8, delay=64)
SIZES = BatchSizes(experts=2, windows=4)


def letters(low, high, count, seed):
    draw = np.random.default_rng(seed)
    return "".join(map(chr, draw.integers(ord(low), ord(high) + 1, count)))


A, Z, B = letters("a", "j", 90, 1), letters("q", "z", 53, 2), letters("a", "j", 70, 3)


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.trained_bank()


def edges(found):
    return [s.characters for s in found]


@pytest.mark.parametrize("reset", [False, True])
def test_the_cuts_are_where_the_alphabet_changes(bank, reset):
    options = SegmentOptions(switch=4.0, minimum=8, delay=64, reset=reset)
    found = segment(bank, A + Z + B, options, SIZES)
    assert [s.nearest for s in found] == ["e0", "e1", "e0"]
    assert edges(found) == [(0, 90), (90, 143), (143, 213)]
    assert all(s.expert == s.nearest and s.margin > 0 for s in found)
    assert found[0].saved is None and all(s.saved > 0 for s in found[1:])


def test_one_alphabet_is_one_span_and_a_foreign_one_is_unknown(bank):
    (whole,) = segment(bank, A, QUICK, SIZES)
    assert whole.expert == "e0" and whole.characters == (0, 90)
    # Nobody else is nearer to the digits, and still they are no part of the span before.
    own, foreign, again = segment(bank, A + letters("0", "9", 60, 4) + B, QUICK, SIZES)
    assert own.expert == again.expert == "e0" and foreign.expert is None
    assert abs(foreign.characters[0] - 90) <= 2 and abs(foreign.characters[1] - 150) <= 2
    assert again.characters[1] == 220


def test_spans_cover_the_text_in_characters_and_lines(bank):
    text = "abc\nü" + A + "\n" + Z + "\n\n" + B
    found = segment(bank, text, QUICK, SIZES)
    assert found[0].start == 0 and found[0].characters[0] == 0 and found[0].lines[0] == 1
    for a, b in itertools.pairwise(found):
        assert a.end == b.start and a.characters[1] == b.characters[0]
        # A line may be of both, and blank lines between them of none.
        assert a.lines[1] - 1 <= b.lines[0] <= a.lines[1] + 1
    assert found[-1].characters[1] == len(text)
    assert found[-1].lines[1] - 1 == len(text.splitlines())
    assert found[-1].end == len(text.encode())


def test_a_long_text_is_cut_as_it_comes_and_as_a_whole_alike(bank):
    text = "".join(letters(*("aj" if i % 2 else "qz"), 40 + 7 * (i % 5), seed=i) for i in range(40))
    found = list(segments(bank, iter([text]), QUICK, SIZES))
    whole = segment(bank, text, SegmentOptions(switch=4.0, minimum=8, delay=4096), SIZES)
    assert edges(found) == edges(whole) and len(found) == 40
    assert [s.nearest for s in found] == [s.nearest for s in whole]
    for a, b in zip(found, whole, strict=True):
        p = [s.route.p_values[s.nearest] for s in (a, b)]
        assert p[0] == pytest.approx(p[1])  # judged alone, however it was read
    # The first spans come before the text has ended.
    parts = iter([text] * 200)
    next(segments(bank, parts, QUICK, SIZES))
    assert next(parts, None) == text


def test_costs_of_a_window_that_begins_anew_are_never_higher(bank):
    windows = tiny_bank.windows(6)
    once, twice = (
        token_costs(bank, windows, SegmentOptions(reset=reset), SIZES) for reset in (False, True)
    )
    assert (twice <= once + 1e-6).all() and (twice < once - 1e-3).any()
    np.testing.assert_array_equal(once[:, :8], twice[:, :8])  # no later window reads these


def test_only_windows_near_a_switch_are_read_again(bank, monkeypatch):
    read, real = [], segment_room.score_tokens

    def counted(bank, windows, *more, **options):
        read.append(len(windows))
        return real(bank, windows, *more, **options)

    monkeypatch.setattr(segment_room, "score_tokens", counted)
    scored = lambda *texts: token_costs(
        bank,
        windows_of(np.frombuffer("".join(texts).encode(), np.uint8).astype(np.int32), 16, 256),
        QUICK,
        SIZES,
    )
    alone = letters("a", "j", 320, 5)
    scored(alone)
    assert read[0] == 20 and sum(read[1:]) <= 5  # a window that is unusual by chance, and around it
    read.clear()
    scored(alone, letters("q", "z", 320, 6))
    assert read[0] == 40 and len(read) == 2 and 1 <= read[1] < 20
    read.clear()
    scored(alone, "0" * 320)  # another domain that no expert knows
    assert len(read) == 2 and 1 <= read[1] < 20


def test_bigram_models_find_the_same_cuts(bank):
    counted = tiny_bank.altered(
        bank,
        bigram={
            name: tiny_bank.bigram.count(
                tiny_bank.windows(200, i, low, low + 10).tokens, np.ones((200, 16), bool), 258
            )
            for i, (name, low) in enumerate((("e0", 97), ("e1", 113)))
        },
    )
    options = SegmentOptions(switch=4.0, minimum=8, delay=64, evidence="bigrams")
    found = segment(counted, A + Z + B, options, SIZES)
    assert edges(found) == [(0, 90), (90, 143), (143, 213)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"switch": -1.0},
        {"switch": float("nan")},
        {"minimum": 0},
        {"minimum": 1000},
        {"delay": 10},
        {"alpha": 2.0},
    ],
)
def test_options_that_cannot_be(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        SegmentOptions(**wrong)


def test_an_empty_text_is_refused(bank):
    with pytest.raises(UserError, match="empty"):
        segment(bank, "", QUICK, SIZES)


def test_the_command_says_what_the_library_says(tmp_path, capsys):
    folder, file = tmp_path / "bank", tmp_path / "text.txt"
    tiny_bank.stored(folder, tiny_bank.trained_bank())
    file.write_text("\n".join((A[:60], A[60:], Z, B)))
    flags = ["--bank", str(folder), "--switch", "40", "--minimum", "8"]
    options = SegmentOptions(switch=40.0, minimum=8)
    found = segment(cr_jax.ExpertBank.load(folder), file, options)

    assert main(["segment", *flags, "--json", str(file)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(file)
    assert [(s["nearest"], s["start"], s["end"]) for s in said["spans"]] == [
        (s.nearest, s.start, s.end) for s in found
    ]
    assert main(["segment", *flags, str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found) + 1 and f"{len(found)} spans" in lines[-1]
    assert lines[0].split()[:2] == [f"{file}:1-2", "e0"]
    assert main(["segment", *flags, "--lines", str(file)]) == 0
    labels = [line.split(" |")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert labels == ["e0", "e0", "e1", "e0"]

    assert main(["segment", *flags, str(tmp_path / "none"), str(file)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "none" in err and "spans" in out
    assert main(["segment", "--bank", str(folder), "--minimum", "0", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "minimum" in err


def test_a_bar_shows_how_far_a_file_is_where_nothing_else_is_on_the_terminal(
    tmp_path, capsys, monkeypatch
):
    folder, file = tmp_path / "bank", tmp_path / "text.txt"
    tiny_bank.stored(folder, tiny_bank.trained_bank())
    file.write_text(A + Z)
    words = ["segment", "--bank", str(folder), "--switch", "40", "--minimum", "8", str(file)]
    assert main(words) == 0
    plain = capsys.readouterr()
    assert plain.err == ""  # no terminal
    for of_errors, of_answers in ((True, False), (True, True), (False, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda at=of_errors: at)
        monkeypatch.setattr(sys.stdout, "isatty", lambda at=of_answers: at)
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert out == plain.out
        assert ("text.txt" in err) == (of_errors and not of_answers), err


def test_the_bar_counts_every_byte_of_the_file(tmp_path, monkeypatch):
    file = tmp_path / "text.txt"
    file.write_text(A + Z)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    options = SegmentOptions(switch=40.0, minimum=8)
    bars, bar = [], command._bar
    monkeypatch.setattr(command, "_bar", lambda name: bars.append(bar(name)) or bars[-1])
    assert list(command._spans(str(file), A + Z, tiny_bank.trained_bank(), options, None))
    assert bars[0].n == bars[0].total == file.stat().st_size
