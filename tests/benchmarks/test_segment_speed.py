"""Speeds of routing and cutting are put into the record beside what is there."""

import json

import tiny_bank

from benchmarks import segment_speed


def test_speeds_are_added_to_the_record(tmp_path, monkeypatch):
    bank = tiny_bank.in_memory(2)
    monkeypatch.setattr(segment_speed.ExpertBank, "load", lambda place: bank)
    (tmp_path / "a.txt").write_text("abcdefgh " * 40)
    out = tmp_path / "segments.json"
    out.write_text('{"splices": 1}')
    words = ["--text", f"files:{tmp_path}/a.txt", "--tokens", "200", "--out", str(out)]
    assert segment_speed.main(words) == 0
    found = json.loads(out.read_text())
    speed = found["speed"]
    assert found["splices"] == 1 and speed["tokens"] == 200
    ratio = speed["segment_tokens_per_s"] / speed["route_tokens_per_s"]
    assert speed["of_route"] == ratio and speed["segment_bigrams_tokens_per_s"] > 0


def test_a_source_without_text_is_one_line(tmp_path, capsys):
    assert segment_speed.main(["--text", f"files:{tmp_path}/none.txt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_large_file_repeats_the_text_up_to_its_size():
    assert b"".join(segment_speed._repeated(b"abc", 7)) == b"abcabca"
    assert b"".join(segment_speed._repeated(b"abcdef", 4)) == b"abcd"


def test_a_program_that_fails_is_no_figure(tmp_path):
    tiny_bank.refuses(lambda: segment_speed.large(tmp_path / "no", b"abc", 1e-5), "status 2")
