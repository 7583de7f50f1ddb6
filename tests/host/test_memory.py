"""What cannot fit into memory is said before anything is allocated."""

import dataclasses
import json
import resource

import pytest
import tiny_bank
from tiny_bank import TEXT, TINY, refuses

from cr_jax import models, router
from cr_jax.bank import ExpertBank, parameters
from cr_jax.bank.files import BankFolder, sha256, write_sealed
from cr_jax.bank.manifest import MANIFEST, write_manifest
from cr_jax.cli import main
from cr_jax.config import ModelConfig
from cr_jax.host import memory
from cr_jax.scoring import batching


@pytest.fixture
def bank(tmp_path):
    return tiny_bank.on_disk(tmp_path / "bank", 3).folder


def test_the_limit_is_the_smallest_of_all(tmp_path, monkeypatch):
    whole = memory.limit()
    assert whole > 1 << 28
    (tmp_path / "max").write_text("123456789\n")
    monkeypatch.setattr(memory, "_CONTROL", (str(tmp_path / "missing"), str(tmp_path / "max")))
    assert memory.limit() == 123_456_789
    (tmp_path / "max").write_text("max\n")
    assert memory.limit() >= whole
    old = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 20, old[1]))
    assert memory.limit() == 1 << 20


def test_more_experts_than_memory_holds_are_refused_before_one_is_read(bank, monkeypatch):
    one = parameters.bytes_in_memory(TINY)
    assert one == 4 * models.count_parameters(TINY)
    monkeypatch.setattr(memory, "limit", lambda: 3 * one)
    assert ExpertBank.load(bank).names == ("e0", "e1", "e2")  # negative control
    monkeypatch.setattr(memory, "limit", lambda: 3 * one - 1)
    opened = []
    monkeypatch.setattr(BankFolder, "open_expert", lambda self, name: opened.append(name))
    refuses(lambda: ExpertBank.load(bank), "loading 3 experts", "GB of memory, and there is")
    assert not opened


def test_ten_thousand_experts_in_a_sealed_bank_json(bank, monkeypatch):
    index = dict(BankFolder(bank).index)
    entry = next(iter(index["experts"].values()))
    index["experts"] = {f"e{i}": entry for i in range(10_000)}
    write_sealed(bank / "bank.json", index)
    monkeypatch.setattr(memory, "limit", lambda: 100_000_000)
    refuses(lambda: ExpertBank.load(bank), "loading 10,000 experts")


def test_windows_that_memory_cannot_score_are_refused_before_they_are_compiled(monkeypatch):
    bank = tiny_bank.in_memory(2)
    sizes = batching.BatchSizes(experts=2)
    need = batching.least_bytes(TINY, *sizes.groups(2))
    batching._check_memory.cache_clear()
    monkeypatch.setattr(memory, "limit", lambda: need - 1)
    monkeypatch.setattr(router, "score_experts", lambda *_, **__: pytest.fail("it was compiled"))
    for call in (router.route, router.score):
        refuses(
            lambda call=call: call(bank, TEXT, sizes=sizes),
            "scoring a window of 16 tokens by 2 experts",
        )
    batching._check_memory.cache_clear()
    monkeypatch.setattr(memory, "limit", lambda: need)
    with pytest.raises(pytest.fail.Exception):  # negative control
        router.route(bank, TEXT, sizes=sizes)


def test_attention_over_a_long_window_is_counted():
    """Two heads' scores of 65,536 x 65,536 numbers."""
    long = dataclasses.replace(ModelConfig(), window=1 << 16, heads=2, encoder_blocks=1)
    assert batching.least_bytes(long) >= 4 * 2 * (1 << 32)
    without = dataclasses.replace(long, encoder_blocks=0, decoder_blocks=0)
    assert batching.least_bytes(without) < batching.least_bytes(long) / 8


def resealed(bank, name, change):
    """The expert's config.json changed, all seals right."""
    folder = bank / "experts" / name
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(record)))
    index = dict(BankFolder(bank).index)
    write_manifest(folder, index["tokenizer"])
    index["experts"][name] = {"sha256": sha256(folder / MANIFEST)}
    write_sealed(bank / "bank.json", index)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": ["\x1b[2J"]},
        {"dtype": 10**400},
        {"about": "x" * 1000},
        {"about": [1]},
        {"about": {"x": float("nan")}},
    ],
)
def test_what_a_bank_says_of_itself_is_checked_before_it_is_shown(bank, change, capsys):
    resealed(bank, "e1", lambda record: {**record, **change})
    for flags in ([], ["--json"]):
        status = main(["bank", "list", "--bank", str(bank), *flags])
        out, err = capsys.readouterr()
        if status == 0:
            assert "about" in change and "NaN" not in out
            continue
        assert status == 2 and out == "" and err.count("\n") == 1 and len(err) < 600


def test_sizes_that_are_no_numbers_are_not_shown(bank, capsys):
    index = dict(BankFolder(bank).index)
    index["model"] = {**index["model"], "window": "\x1b]0;x\x07" * 900, "latents": 10**300}
    write_sealed(bank / "bank.json", index)
    assert main(["bank", "list", "--bank", str(bank)]) == 0
    out = capsys.readouterr().out
    assert "window ? tokens -> ? latents of 16" in out and out.isascii()
