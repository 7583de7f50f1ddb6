"""Closed and full streams: the judge of a call notices what must not be."""

from benchmarks.torture import closed, fuzz


def test_every_command_meets_every_combination():
    chosen = closed.combinations()
    assert len(chosen) == len(closed.COMMANDS) * 11 == len(set(chosen))
    assert (
        ("list", ()) in chosen and ("usage", (0, 1, 2)) in chosen and ("json", "full 1") in chosen
    )


def test_what_is_wrong_with_a_call():
    wrong = closed.wrong
    assert wrong("list", (), "all", 0, "all", "") == wrong("list", (1,), "all", 2, "", "no\n") == []
    assert wrong("list", (1, 2), "all", 2, "", "") == wrong("usage", (0,), "", 2, "", "no\n") == []
    for call in (
        ("list", (), "all", 2, "", "no\n"),
        ("list", (1,), "all", 0, "", ""),
        ("list", (2,), "all", 0, "part", ""),
        ("usage", (), "", 2, "", "no\nno\n"),
        ("usage", (), "", 2, "", "Traceback\n"),
        ("usage", (), "", 98, "", "no\n"),
        ("usage", "full 2", "", 0, "", ""),
    ):
        assert wrong(*call), call


def test_calls_with_real_descriptors(tmp_path):
    fuzz.make_bank(tmp_path / "bank", 1)
    fuzz.make_bank(tmp_path / "bare", 0)
    (tmp_path / "text").write_text("words")
    chosen = [("list", ()), ("list", (1,)), ("no source", (2,)), ("no text", "full 2")]
    assert closed.run(tmp_path, chosen) == [(0, []), (2, []), (2, []), (2, [])]
