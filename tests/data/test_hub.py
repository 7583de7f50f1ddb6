"""A folder that `datasets` saved is read without it, and a stream of the Hub with it."""

import json
import sys
import types

import pyarrow
import pytest

from cr_jax.data import sources
from cr_jax.data.sources import documents
from cr_jax.errors import UserError


def save(folder, texts, files=2):
    """As `Dataset.save_to_disk` writes: Arrow streams of some batches, and a state."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    for i, name in enumerate(names):
        table = pyarrow.table({"id": list(range(len(texts[i::files]))), "code": texts[i::files]})
        out = pyarrow.OSFile(str(folder / name), "wb")
        with out, pyarrow.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def refused(spec: str) -> str:
    with pytest.raises(UserError) as error:
        list(documents(spec))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_data_set(tmp_path):
    save(tmp_path / "set" / "train", [f"text {i}" for i in range(300)])
    spec = f"hf:{tmp_path}/set/train#code"
    sources.check(spec)
    found = list(documents(spec))
    assert [d.text for d in found] == [f"text {i}" for i in (*range(0, 300, 2), *range(1, 300, 2))]
    assert found[0].name == "train/data-00000-of-00002.arrow:1"
    assert sources.size(spec) > 0
    parts = [list(documents(f"{spec}@{split}")) for split in sources.SPLITS]
    assert sum(map(len, parts)) == 300 and all(parts)

    first = sources.fingerprint(spec)
    path = tmp_path / "set" / "train" / "data-00001-of-00002.arrow"
    path.write_bytes(path.read_bytes().replace(b"text 1", b"TEXT 1"))
    assert sources.fingerprint(spec) != first


def test_a_bad_data_set_is_one_line(tmp_path):
    folder = save(tmp_path / "set" / "train", ["a", "b", "c"])
    assert "no column 'text'; it has id, code" in refused(f"hf:{folder}")
    assert "it has no state.json" in refused(f"hf:{tmp_path}/set")
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert f"splits train, test; name one, as in hf:{folder}" in refused(f"hf:{tmp_path}/set")
    part = folder / "data-00000-of-00002.arrow"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    assert "data-00000-of-00002.arrow" in refused(f"hf:{folder}#code")
    part.unlink()
    assert "is missing" in refused(f"hf:{folder}#code")
    for name in ("../secret", "/etc/passwd", ""):
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        assert "which is no file of its folder" in refused(f"hf:{folder}#code")
    (folder / "state.json").write_text("[]")
    assert "state.json is damaged" in refused(f"hf:{folder}#code")


def test_without_datasets_a_name_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "install cr_jax[hub], or give a folder" in refused("hf:owner/name/train#code")
    assert "hf:NAME/SPLIT" in refused("hf:name")
    assert "no such folder" in refused("hf:a/b/c/d/train")


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("name/train", ("name", None)),
        ("owner/name/train", ("owner/name", None)),
        ("owner/name/config/train", ("owner/name", "config")),
    ],
)
def test_a_name_is_streamed(monkeypatch, target, asked):
    module, calls = types.ModuleType("datasets"), []

    def load_dataset(name, config, split, streaming):
        calls.append((name, config))
        assert split == "train" and streaming
        yield from ({"code": f"text {i}", "repo": "r"} for i in range(3))

    module.load_dataset = load_dataset
    module.load_dataset_builder = lambda name, config: types.SimpleNamespace(
        config_id=f"{name}-{config}", hash="0"
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    found = list(documents(f"hf:{target}#code"))
    assert [d.text for d in found] == ["text 0", "text 1", "text 2"] and found[0].group == "r"
    assert calls == [asked]
    sources.check(f"hf:{target}#code")
    assert sources.size(f"hf:{target}#code") == 0
    first = sources.fingerprint(f"hf:{target}#code")
    module.load_dataset_builder = lambda *names: types.SimpleNamespace(config_id="x", hash="1")
    assert sources.fingerprint(f"hf:{target}#code") != first  # the data set has another version

    def fail(*args, **options):
        raise ConnectionError("no network\nat all")

    module.load_dataset = module.load_dataset_builder = fail
    assert refused(f"hf:{target}#code") == f"data source hf:{target} cannot be read: no network"


def test_the_package_reads_and_streams_a_local_folder(tmp_path):
    """Where `datasets` is installed: what it saves itself, and a folder that it streams."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["ein", "zwei"]}).save_to_disk(str(tmp_path / "saved"))
    assert [d.text for d in documents(f"hf:{tmp_path}/saved")] == ["ein", "zwei"]
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "train.jsonl").write_text('{"text": "ein"}\n{"text": "zwei"}\n')
    spec = f"hf:{tmp_path}/local/train"
    assert [d.text for d in documents(spec)] == ["ein", "zwei"]
    assert sources.fingerprint(spec) == sources.fingerprint(spec)
