"""The record's token arrays at a tiny size, and its table against the raw logs."""

import json
import pathlib

import numpy as np
import pytest
import tiny_gpt2

from benchmarks.record import table, tokens
from cr_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
# overlap.json is no run; those of main.py are its reports.
EVERY = sorted((ROOT / "results" / "record").glob("20*.json"))
REPORTS = [path for path in EVERY if "provenance" in json.loads(path.read_text())]
RAW = [path for path in EVERY if path not in REPORTS]


def test_windows_are_spread_from_the_first_to_the_last():
    found = tokens.windows(np.arange(403), 4, 5)
    assert found[:, 0].tolist() == [0, 96, 196, 296, 396]
    assert tokens.windows(np.arange(403), 4, 0).shape == (100, 4)


@pytest.fixture
def byte_pieces(tmp_path):
    """A folder in the form of GPT-2's two files whose pieces are the 256 bytes: 'a' has id 64."""
    return tiny_gpt2.write(tmp_path / "gpt2")


def text_folders(root, **files):
    for name, texts in files.items():
        folder, _, stem = name.partition("__")
        path = root / folder / f"{stem.replace('_', '-')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return root


def test_token_arrays_are_the_documents_with_end_ids(tmp_path, byte_pieces, capsys):
    data = text_folders(
        tmp_path / "data",
        code_python__train_00=["aab", "b"],
        code_python__train_01=["bb"],
        code_python__valid=["a"],
        code_python__test=["ba"],
        wikitext__valid=["ab", "aa"],
    )
    words = ["--data", str(data), "--gpt2", str(byte_pieces), "--out", str(tmp_path / "out")]
    assert tokens.main(words) == 0
    a, b, end = 64, 65, 256
    rows = {p.stem: np.load(p) for p in (tmp_path / "out").iterdir()}
    assert {name: row.tolist() for name, row in rows.items()} == {
        "train00": [a, a, b, end, b, end],
        "train01": [b, b, end],
        "valid": [a, end],
        "test": [b, a, end],
        "wikitext": [a, b, end, a, a, end],
    }
    assert {row.dtype for row in rows.values()} == {np.dtype(np.uint16)}
    capsys.readouterr()
    assert tokens.main(words) == 2  # an old training file would join the new ones
    assert "already has" in capsys.readouterr().err


def test_a_missing_split_is_one_line_and_writes_nothing(tmp_path, byte_pieces, capsys):
    data = text_folders(tmp_path / "data", code_python__train=["a"], code_python__valid=["a"])
    assert (
        tokens.main(
            ["--data", str(data), "--gpt2", str(byte_pieces), "--out", str(tmp_path / "out")]
        )
        == 2
    )
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", RAW, ids=lambda p: p.stem)
def test_the_table_says_what_the_raw_log_says(path):
    row = json.loads(path.read_text())
    readme = (ROOT / "benchmarks" / "record" / "README.md").read_text()
    line = next((x for x in readme.splitlines() if f"{path.name})" in x and x[0] == "|"), "")
    reached = row["seconds_to_99_47"]
    tra = [f"{100 * row['tra'][n]:.2f}" for n in ("valid", "test", "wikitext", "random")]
    for said in (
        f"{reached:.1f}" if reached else "not reached",
        *tra,
        row["commit"][:7],
        f"{row['tokens_per_s'] / 1e3:.0f} K",
        f"{row['train_tokens'] / 1e6:.1f} M",
    ):
        assert said in line, said
    assert row["tokens"]["valid"] == 2048 * row["L"]
    assert reached is None or row["tra"]["valid"] >= table.TARGET
    assert row["tra"]["random"] <= 0.5


def row(seed, reached, seconds=100.0, **more):
    """What the table reads of an unchanged run on the record's chip."""
    groups = {g: {"valid": 0.5} for g in ("tra", "nll", "window_exact", "majority_tra", "tokens")}
    return (
        dict.fromkeys(table.KEPT)
        | groups
        | {
            "changes": [],
            "device": "NVIDIA H100",
            "commit": "abc",
            "seed": seed,
            "seconds_to_99_47": reached,
            "settings": {"train": {"seconds": seconds}},
        }
        | more
    )


def test_the_record_is_the_fastest_command_whose_seeds_all_met_the_target():
    found = lambda *rows: [r["seed"] for r in table.record_runs(rows) or ()]
    slow, fast = [row(0, 90.0), row(1, 80.0)], [row(2, 70.0, 95.0), row(3, 60.0, 95.0)]
    assert found(*slow) == [0, 1] and found(*slow, *fast) == found(*fast, *slow) == [2, 3]
    assert found(*slow, *fast, row(4, None, 95.0)) == [0, 1]  # one seed of the faster failed
    assert found(*slow, row(5, 10.0, 20.0)) == [0, 1]  # one seed alone
    for other in (
        {"commit": "def"},
        {"device": "NVIDIA H200"},
        {"changes": ["model.latents=4"]},
        {"seconds": 170.0},
    ):
        assert found(row(0, 90.0), row(1, 80.0, **other)) == []
    assert found(row(0, 90.0), row(0, 80.0)) == []


def test_the_summary_is_what_the_table_makes_of_the_raw_logs():
    raws = [json.loads(path.read_text()) for path in RAW]
    stored = json.loads((ROOT / "results" / "paper.json").read_text())
    times = [r["seconds_to_99_47"] for r in table.record_runs(raws)]
    assert sorted(stored["record_fold"]["all"]) == sorted(times)
    by_main = table.record_of([json.loads(path.read_text()) for path in REPORTS])
    assert by_main["seeds"] >= 3 and stored["record"] == by_main
    rows = [
        *map(table.named, raws),
        *(table.of_report(json.loads(path.read_text())) for path in REPORTS),
    ]
    assert REPORTS and all(r in rows for r in stored["rows"])
    assert all(table.of_report(json.loads(path.read_text())) in stored["rows"] for path in REPORTS)


def test_unreadable_arrays_are_named(tmp_path):
    (tmp_path / "valid.npy").write_bytes(b"not an array")
    with pytest.raises(UserError, match=r"valid\.npy"):
        tokens.array(tmp_path / "valid.npy")


def report_of_main(seed=2, reached=7.5, **settings):
    cell = lambda tra: {
        "tra": tra,
        "nll": 0.1,
        "window_exact": 0.5,
        "majority_tra": 0.4,
        "tokens": 512,
    }
    return {
        "name": "cr_87m_m4",
        "summary": {"parameters": 9},
        "fingerprint": {
            "code": {"code": cell(0.99), "wikitext": cell(0.7), "random_tokens": cell(0.1)}
        },
        "curves": {"code": {"valid_tra": [0.5, 0.98], "valid_nll": [2.0, 0.2]}},
        "training": {
            "steps": 4,
            "tokens_per_expert": 800,
            "seconds": 8.0,
            "target_tra": 0.9947,
            "seconds_to_target": {"code": reached} if reached else {},
            "seconds_by_phase": {"compile": 3.0, "validate": 1.0},
        },
        "provenance": {
            "command": "python main.py --config=configs/cr_87m.py:m4",
            "commit": "abc",
            "devices": ["gpu NVIDIA H200"],
            "config": {
                "seed": seed,
                "model": {"bottleneck": "fold", "window": 512, "latents": 4, "d_latent": 512},
                **settings,
            },
        },
    }


def test_the_record_of_main_py_is_the_fastest_command_with_seeds_that_all_met_the_target():
    of, report = table.record_of, report_of_main
    slow, fast = [report(0, 9.0), report(1, 8.0)], [report(s, 5.0 + s, a=1) for s in (0, 1, 2)]
    assert of(slow)["all"] == [9.0, 8.0] and of(slow)["spread"] == 1.0
    assert of([*slow, *fast])["all"] == [5.0, 6.0, 7.0]
    assert of([*slow, *fast, report(3, None, a=1)])["all"] == [9.0, 8.0]  # a seed missed it
    assert of(fast[:1]) is None and of([fast[0], fast[0]]) is None  # one seed alone


def test_a_run_of_main_py_is_a_row_like_the_raw_logs():
    report = report_of_main()
    row = table.of_report(report)
    assert set(table.KEPT) <= row.keys()
    assert row["tra"] == {
        "code_test": 0.99,
        "wikitext_valid": 0.7,
        "random": 0.1,
        "code_valid": 0.98,
    }
    assert (row["seconds_to_99_47"], row["tokens_per_s"], row["M"]) == (7.5, 100.0, 4)
    assert row["command"].startswith("python main.py")
    report["training"]["target_tra"] = 0.9
    assert table.of_report(report)["seconds_to_99_47"] is None
