"""Ids are hidden once each, found where they stand, and every arm is scored on the same tokens."""

import json

import numpy as np
import pytest
import tiny_lms

from benchmarks import latent_memory, memory_indexes
from benchmarks import memory_tasks as tasks
from cr_jax.modular import memory
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import IDS, LATENTS, MemoryOptions
from cr_jax.scoring.batching import BatchSizes


@pytest.fixture(scope="module")
def bank():
    return tiny_lms.bank()


@pytest.fixture(scope="module")
def hidden(bank):
    text = np.frombuffer(tiny_lms.letters(0, 8000).encode(), np.uint8).astype(np.int32)
    return text, *tasks.hidden(bank, text, 1, 0)


def test_ids_stand_at_their_depths_and_nowhere_else(bank, hidden):
    text, ids, needles = hidden
    assert len(needles) == len(tasks.DEPTHS) * len(tasks.KINDS) and len(ids) == len(text)
    left = np.ones(len(ids), bool)
    for x in needles:
        assert (ids[x.answer : x.answer + tasks.ID] == x.id).all()
        assert (ids[x.start : x.answer] == x.line).all()
        assert abs(x.start / len(ids) - x.depth) < 0.1
        assert left[x.start : x.answer + tasks.ID + 1].all()  # no line over another
        left[x.start : x.answer + tasks.ID + 1] = False
    assert (ids[left] == text[left]).all()
    assert len({bytes(x.line.tolist()) for x in needles}) == len(needles)


def test_indexes_and_pages_are_judged_by_where_the_lines_are(bank, hidden):
    _, ids, needles = hidden
    windows = tasks.windows(bank, ids)
    sizes = BatchSizes(2, 16, 256)
    kept = memory.write(bank, windows, MemoryOptions(LATENTS), sizes)
    stored = memory.write(bank, windows, MemoryOptions(IDS), sizes)
    setting = tasks.Setting(bank, None, 256, sizes)
    asked = tasks.questions(needles, ids, 64)
    found = memory_indexes.index_recall(setting, kept, stored, needles, asked)
    assert found["surprising pairs"] >= 0.9 > 0.5 > found["pooled latents"]
    assert found["pairs of rare tokens"] > 0.5
    rebuilt = tasks.rebuilt(Reader(bank, kept, sizes), needles, ids)
    loose = tasks.rebuilt(Reader(bank, tasks.bare(kept), sizes), needles, ids)
    assert rebuilt["tokens"] == rebuilt["random"] == 1.0
    assert loose["random"] == 0.0 and loose["tokens"] < 1  # a negative control


def test_a_reader_without_weights_goes_on_after_the_longest_match():
    tokens = np.array([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3])
    assert tasks.copied(tokens, 3).tolist() == [4, 9, 2]  # 1 2 3, not the later 2 3
    assert tasks.copied(np.array([7, 8]), 2).tolist() == [0, 0]  # nothing matches


def test_random_pages_are_of_the_past(bank, hidden):
    kept = memory.write(bank, tasks.windows(bank, hidden[1]), MemoryOptions(IDS))
    anywhere = memory_indexes.Anywhere(bank, kept)
    best = anywhere._best(np.zeros((3, 1)), np.array([0, 2, 90]), 4)
    assert (best[0] == -1).all() and (best[1] < 2).all() and best[2].min() >= 0
    assert best[2].max() < 90


def test_a_whole_run_on_a_tiny_bank(tmp_path):
    folder = tiny_lms.on_disk(tmp_path / "bank", tiny_lms.bank())
    (tmp_path / "text").mkdir()
    for i in range(2):
        (tmp_path / "text" / f"{i}.txt").write_text(tiny_lms.letters(i, 6000))
    out = tmp_path / "out.json"
    argv = ["--quick", "--bank", folder, "--text", f"files:{tmp_path}/text", "--tokens", "8000"]
    assert latent_memory.main([*argv, "--segments", "3", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found["recall"]) == {"0.0", "0.25", "0.5", "0.75", "1.0"} and found["tokens"] == 8000
    arms = found["recall_by_tokens"]["8000"]
    assert arms["ids"] == arms["latents_bfloat16"] and arms["nothing"]["in_pages"] == 0
    assert arms["latents_int4_bare"]["in_pages"] <= arms["ids"]["in_pages"]
    bits = found["bits_per_byte"]
    assert {"nothing", "half", "sliding", "random_pages", "full_kv"} < set(bits)
    assert bits["ids"]["bpb"] > 0 and set(bits["ids"]) == {"state_bytes", "flops_per_token", "bpb"}
    assert bits["latents_bfloat16"]["state_bytes"] > bits["latents_int4"]["state_bytes"]
    assert bits["latents_int4"]["flops_per_token"] > bits["ids"]["flops_per_token"]
    assert found["time_per_token"]["write_latents"] > 0


def test_bad_input_is_one_line(capsys, tmp_path):
    assert latent_memory.main([]) == 2
    (tmp_path / "short.txt").write_text("abc")
    argv = ["--quick", "--text", f"files:{tmp_path}/short.txt"]
    assert latent_memory.main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "--text SPEC" in said and "give more of it" in said
