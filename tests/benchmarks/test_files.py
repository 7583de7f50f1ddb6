"""The benchmark of many files: its files, its peer, and its ratios, on two tiny domains."""

import json

import numpy as np
import tiny_bank

from benchmarks.routing import files


def test_files_are_about_as_long_and_of_all_domains_in_turn(tmp_path):
    rows = [{"text": c * n} for c, n in (("a", 9000), ("b", 3000), ("c", 3000), ("d", 10))]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = files.pieces(["jsonl:{root}/in.jsonl"], str(tmp_path), 9)
    assert [len(t) for t in texts] == [4096, 4096]
    assert set(texts[0]) == {"a"} and set(texts[1]) == set("b\nc")
    folder = files.written(tmp_path / "out", {"x": texts, "y": ["other"]}, 5)
    assert sorted(p.name for p in folder.iterdir()) == ["x.0", "x.2", "x.4", "y.1", "y.3"]
    assert (folder / "x.4").read_text() == texts[0]


def test_the_peer_is_right_and_timed(tmp_path):
    rng = np.random.default_rng(0)
    texts = {
        n: ["".join(rng.choice(list(letters), 200)) for _ in range(30)]
        for n, letters in (("e0", "abcdefghij"), ("e1", "qrstuvwxyz"))
    }
    files.train_sklearn(texts, tmp_path / "model.npz")
    folder = files.written(tmp_path / "out", texts, 6)
    command = [files.sys.executable, "-m", "benchmarks.routing.sklearn_files"]
    row, found = files.timed("peer", [*command, str(tmp_path / "model.npz"), str(folder)], 6)
    assert row["accuracy"] == 1 and row["files"] == 6 == len(found) and row["peak_mb"] > 10
    assert found["e1.1"] == ("e1", "e1")
    bad = [files.sys.executable, "-c", "print('file,expert,nearest')"]
    tiny_bank.refuses(lambda: files.timed("none", bad, 6), "0 of 6 answers")
