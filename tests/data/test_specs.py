"""What a spec says, and that every path can be named in one."""

import json

import pytest

from cr_jax.data.sources import documents, fingerprint
from cr_jax.data.specs import Source, parse
from cr_jax.errors import UserError


def write(path, text="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"text": text, "content": f"content of {text}"}
    path.write_text(json.dumps(record) + "\n" if ".jsonl" in path.name else text)


def texts(spec):
    fingerprint(spec)
    return [document.text for document in documents(spec)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "spec,parts",
    [
        ("jsonl:a.jsonl", ("a.jsonl", "text", None, "")),
        ("jsonl:a.jsonl#content", ("a.jsonl", "content", None, "")),
        ("jsonl:a.jsonl#", ("a.jsonl", "text", None, "")),
        (" jsonl:C#/a.jsonl\n", ("C#/a.jsonl", "text", None, "")),
        ("jsonl:C#/a.jsonl#my field@test", ("C#/a.jsonl", "my field", "test", "")),
        ("jsonl:F#/C#/*.jsonl", ("F#/C#/*.jsonl", "text", None, "")),
        ("jsonl:a.jsonl#content&group=my repo@valid", ("a.jsonl", "content", "valid", "my repo")),
        ("jsonl:a.jsonl#&group=repo", ("a.jsonl", "text", None, "repo")),
        ("jsonl:R&D/a.jsonl#x", ("R&D/a.jsonl", "x", None, "")),
        ("files:C#", ("C#", "text", None, "")),
        ("tfds:set/train#code&group=id", ("set/train", "code", None, "id")),
    ],
)
def test_the_parts_of_a_spec(spec, parts):
    found = parse(spec)
    assert (found.target, found.field, found.split, found.group_key) == parts
    assert isinstance(found, Source) and found.spec == spec


@pytest.mark.parametrize("spec", ["jsonl:a#b&c", "jsonl:a#b&group=", "jsonl:a#b&group=c&group=d"])
def test_an_option_that_is_not_known_is_refused(spec):
    with pytest.raises(UserError, match="&group=KEY or nothing"):
        parse(spec)


@pytest.mark.parametrize(
    "name",
    [
        "C#/a.jsonl",
        "a#b.jsonl",
        "a#b/c#d.jsonl",
        "run[1]/a.jsonl",
        "what?.jsonl",
        "a*.jsonl",
        "[a-z].jsonl",
        "mail@test/a.jsonl",
        "a.jsonl@test",
        "a:b.jsonl",
        "a b .jsonl ",
        "**/a.jsonl",
        "'\"\\.jsonl",
        "-a.jsonl",
        "a&group=b.jsonl",
        "~x/a.jsonl",
        "ä\u0308.jsonl",
        "3*a.jsonl",
    ],
)
def test_every_name_can_be_written_and_wins_over_what_it_could_mean(here, name):
    """A file that the name could also mean, as a pattern or without its end, is not read."""
    write(here / name, "right")
    for other in ("ab.jsonl", "a.jsonl", "a", "run1/a.jsonl", "z.jsonl", "whatX.jsonl", "C"):
        if not (here / other).exists() and not (here / other).is_dir():
            write(here / other, "wrong")
    assert texts(f"jsonl:{name}") == ["right"]
    assert texts(f"jsonl:{here}/{name}") == ["right"]
    assert texts(f"jsonl:{name}#content") == ["content of right"]
    assert len(texts(f"files:{name}")) == 1


@pytest.mark.parametrize("folder", ["run[1]", "C#", "a?", "b*", "mail@test"])
def test_patterns_below_a_folder_with_special_characters(here, folder):
    for name in ("a.jsonl", "b.jsonl"):
        write(here / folder / name, name)
    for other in ("run1", "C", "ax", "bx", "mail"):
        write(here / other / "c.jsonl", "wrong")
    assert texts(f"jsonl:{folder}/?.jsonl") == texts(f"jsonl:{folder}/**") == ["a.jsonl", "b.jsonl"]
    assert texts(f"jsonl:{folder}/*#content") == ["content of a.jsonl", "content of b.jsonl"]
    assert len(texts(f"files:{folder}")) == len(texts(f"files:{folder}/*")) == 2


def test_a_pattern_is_one_where_nothing_has_its_name(here):
    for folder in ("run1", "run2"):
        write(here / folder / "d.jsonl", folder)
    assert texts("jsonl:run[12]/d.jsonl") == ["run1", "run2"]
    (here / "run[12]").mkdir()
    with pytest.raises(UserError, match="matches no file"):
        texts("jsonl:run[12]/d.jsonl")


def test_the_home_folder_is_the_same_in_every_source(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    write(here / "home" / "a.jsonl", "home")
    write(here / "~" / "a.jsonl", "wrong")
    for path in ("a.jsonl", "*.jsonl", "a.jsonl#text", "**/a.jsonl"):
        assert texts(f"jsonl:~/{path}") == ["home"]
    assert len(texts("files:~")) == 1 and len(texts("files:~/a.jsonl")) == 1
    assert texts("jsonl:./~/a.jsonl") == ["wrong"]
