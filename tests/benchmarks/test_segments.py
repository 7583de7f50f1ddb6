"""Labelled documents by kind: what a bank of two alphabets makes of them."""

import json

import numpy as np
import pytest
import tiny_bank
import zstandard

from benchmarks import segments
from cr_jax.studies.segments import metrics

CODE, PROSE = "abcdefghij" * 6, "qrstuvwxyz" * 4
TEXT = PROSE + CODE + PROSE
LABELS = [[0, 40, "prose"], [40, 100, "code"], [100, 140, "prose"]]


def store(folder, rows):
    folder.mkdir(parents=True)
    lines = "\n".join(map(json.dumps, rows)).encode()
    for split in ("valid", "test"):
        (folder / f"{split}.jsonl.zst").write_bytes(zstandard.compress(lines))


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.trained_bank().changed(text_form="lf_nfc", folder=None)


def test_labels_of_characters_are_labels_of_tokens(bank, tmp_path):
    text = "ü" + TEXT[1:]  # two bytes, two tokens
    rows = [{"text": text, "segments": LABELS}, {"text": "a\r\n" + TEXT, "segments": LABELS}]
    store(tmp_path / "k", rows)
    (found,) = segments.labelled(bank, tmp_path / "k" / "test.jsonl.zst")  # CR LF changes places
    assert found.ids.tolist() == list(text.encode())
    assert np.flatnonzero(np.diff(found.owner)).tolist() == [40, 100]


def test_each_kind_has_its_metrics(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "WAYS", {"experts": segments.WAYS["experts"]})
    store(tmp_path / "python", [{"text": TEXT, "segments": LABELS}])
    wrong = [[a, b, {"code": "prose", "prose": "code"}[kind]] for a, b, kind in LABELS]
    store(tmp_path / "html", [{"text": TEXT, "segments": wrong}])
    (tmp_path / "empty").mkdir()
    kinds = segments.parsed_kinds(tmp_path)
    assert [k.name for k in kinds] == ["html", "python"]
    letters = lambda text: 9.0 * np.stack([text.ids > ord("m"), text.ids < ord("m")])
    bad, good = (segments.mixed(bank, k, ["e0"], {"letters": letters}) for k in kinds)
    assert good["ways"]["letters"]["token_accuracy"] == 1 and good["ways"].keys() >= {"experts"}
    assert good["documents"] == 1 and good["token_accuracy"] > 0.97 and good["boundary_f1"] == 1
    assert bad["token_accuracy"] < 0.6
    assert good["code_share"] == pytest.approx(60 / 140) == 1 - bad["code_share"]
    assert metrics(np.zeros(3, int), np.zeros(3, int)).keys() < good.keys()
    (tmp_path / "html" / "valid.jsonl.zst").write_bytes(zstandard.compress(b""))
    tiny_bank.refuses(lambda: segments.mixed(bank, kinds[0], ["e0"]), "valid", "no labelled")
    (tmp_path / "html" / "valid.jsonl.zst").write_bytes(b"{}")
    tiny_bank.refuses(lambda: segments.mixed(bank, kinds[0], ["e0"]), "cannot be read")
    tiny_bank.refuses(lambda: segments.parsed_kinds(tmp_path / "empty"), "parsed_files")


def test_a_group_pays_for_no_switch_between_its_own_experts():
    """Two experts of the second group take turns, token by token; each alone is dear half the
    time."""
    turns = np.arange(64) % 2
    cost = np.stack([np.full(64, 3.0), np.where(turns, 8.0, 1.0), np.where(turns, 1.0, 8.0)])
    both = segments.grouped(cost, np.array([False, True, True]))
    assert both.shape == (2, 64) and np.allclose(both[0], 3.0)
    assert np.allclose(both[1], 1.0 + np.log(2), atol=1e-3)  # the mean of e^-1 and almost nothing
    second = np.array([False, True, True])
    assert (segments.of_group(cost, second, True, 6.0, 8) == 1).all()
    assert (segments.of_group(cost, second, False, 6.0, 8) == 0).all()


@pytest.mark.filterwarnings("ignore:.*load_module")  # of ml_collections
def test_a_group_of_nobody_is_refused(tmp_path, capsys):
    given = ["--config", "configs/pretrained.py", "--mixed", "x", "--out", str(tmp_path / "o")]
    assert segments.main(given) == 2
    assert "need --code" in capsys.readouterr().err
