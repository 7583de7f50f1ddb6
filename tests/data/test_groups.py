"""Groups: what belongs together stays on one side of a split."""

import json

import pytest

from cr_jax.data.corpus import load_corpus
from cr_jax.data.groups import KEYS, group_of
from cr_jax.data.sources import Reading, documents
from cr_jax.data.specs import SPLITS
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.errors import UserError


def write(folder, key, inside="", count=180, per=3):
    """Records of `count` / `per` groups under `key`, each record with a path of its own."""
    with open(folder / "c.jsonl", "w") as file:
        for i in range(count):
            own = {key: f"https://o/p{i // per}"} if key else {}
            own = {inside: {**own, "n": 1}} if inside else own
            record = {"text": f"{i // per}", "path": f"f{i}.py", "id": i, **own}
            file.write(json.dumps(record) + "\n")
    return f"jsonl:{folder}/c.jsonl"


def torn(spec, reading=None):
    """Groups (the texts say which) that stand in more than one part; all parts are needed."""
    parts = [
        {d.text for d in documents(f"{spec}@{split}", reading or Reading())} for split in SPLITS
    ]
    assert all(parts)
    return (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])


@pytest.mark.parametrize("key", [key for key in KEYS if "path" not in key and "file" not in key])
def test_usual_keys_keep_a_group_together(tmp_path, key):
    assert not torn(write(tmp_path, key))


@pytest.mark.parametrize("inside", ["meta", "metadata"])
def test_keys_among_metadata_are_found_too(tmp_path, inside):
    """A repository there holds more than a path beside the text."""
    assert not torn(write(tmp_path, "repo_name", inside))
    assert group_of({inside: {"url": "a"}, "url": "b", "path": "c"}) == "b"


def test_an_unusual_key_is_set_in_the_source_or_in_the_settings(tmp_path):
    spec = write(tmp_path, "owner")
    assert torn(spec)  # by their paths
    assert not torn(f"{spec}#text&group=owner") and not torn(f"{spec}#&group=owner")
    assert not torn(spec, Reading(group_key="owner"))
    assert torn(f"{spec}#&group=id", Reading(group_key="owner"))  # the source's own wins
    inner = write(tmp_path, "owner", "origin")
    assert torn(inner) and not torn(inner, Reading(group_key="origin.owner"))
    with pytest.raises(UserError, match=r"line 1 has no field 'author' to group by; name another"):
        list(documents(f"{spec}@test", Reading(group_key="author")))
    # Without a split there is nothing to group for.
    assert len(list(documents(spec, Reading(group_key="author")))) == 180


def test_the_cache_knows_the_key(tmp_path):
    spec = write(tmp_path, "owner")
    by = lambda key: load_corpus(
        [f"{spec}@test"], ByteTokenizer(), tmp_path / "cache", reading=Reading(group_key=key)
    )
    assert by("owner").fingerprint != by("id").fingerprint
    assert by("owner").names == by("owner").names != by("id").names


def test_what_names_no_group(tmp_path):
    assert group_of({"source": "WikiText", "path": "a"}) == "a"
    assert group_of({"source": "https://a/b", "path": "a"}) == "https://a/b"
    assert group_of({"repo": {"id": 1}, "repo_name": "", "url": None, "path": 7}) == "7"
    assert group_of({"text": "a", "source": "b"}) is None
    assert group_of({"repo": "\ud800"}) == "\ud800"
    assert group_of({"repo": b"\xff"}) == "\ufffd"
