"""The index alone on a text whose lines are known, with keys that are long enough and too short."""

import json

import numpy as np
import tiny_bank
import tiny_lms

from benchmarks import memory_keys


def test_long_keys_find_all_lines_and_short_ones_fewer(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_keys, "HASHES", (1, 24))
    bank = tiny_lms.bank()
    text = np.asarray(bank.tokenizer.encode(tiny_lms.letters(0, 6000)), np.int32)
    found = memory_keys.recalls(bank, text, window=64, each=1)
    for shares in found.values():
        assert shares["24"] >= 0.9 > shares["1"]


def test_a_run_says_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_keys, "HASHES", (24,))
    folder = tiny_lms.on_disk(tmp_path / "bank", tiny_lms.bank())
    (tmp_path / "a.txt").write_text(tiny_lms.letters(0, 6000))
    out = tmp_path / "keys.json"
    given = ["--bank", str(folder), "--text", f"files:{tmp_path}/*.txt", "--out", str(out)]
    small = ["--window", "32", "--tokens", "5000", "--each", "1"]
    assert memory_keys.main([*given, *small]) == 0
    found = json.loads(out.read_text())
    assert set(found["recall_at_4"]["5000"]) == {"surprise", "rare tokens"}
    assert found["windows"] == {"5000": 157} and "memory_keys" in found["command"]
    assert memory_keys.main([*given, "--bank", str(tmp_path / "no")]) == 2
    assert tiny_bank.TINY.window == 16  # the benchmark's windows are its own, not the bank's
