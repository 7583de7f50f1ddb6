"""Every setting is checked before text is read, or at least before training: docs/checks.md is
tried line by line with a trainer that must not be reached."""

import dataclasses
import os
import pathlib
import re
import shutil

import jax
import pytest
import tiny_run

from cr_jax import models
from cr_jax.config import Experiment, default, domain
from cr_jax.config import names as naming
from cr_jax.data import sources
from cr_jax.errors import UserError
from cr_jax.experiment import checks, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAGES = ("settings", "devices", "files", "text")
ROWS = re.findall(
    r"^\| `([\w.]+)` \| (?:`(.+)`|-) \| ([\w-]+) \|$",
    (ROOT / "docs" / "checks.md").read_text(),
    re.MULTILINE,
)
NUMBERS = {"nan": float("nan"), "inf": float("inf")}


def leaves(value, where=""):
    for field in dataclasses.fields(value):
        inner, name = getattr(value, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{name}.")
        else:
            yield name


def test_the_table_has_every_setting_and_no_other():
    assert {name for name, _, _ in ROWS} == set(leaves(Experiment()))
    assert {stage for _, _, stage in ROWS} == {"-", "settings", "devices", "files"}
    switches = {name for name, wrong, stage in ROWS if stage == "-"}
    assert switches == {n for n in leaves(Experiment()) if _is_switch(n)} - {"scoring.predicted"}


def _is_switch(name: str) -> bool:
    value = Experiment()
    for part in name.split("."):
        value = getattr(value, part)
    return isinstance(value, bool)


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Calls main with changed settings and a trainer that must not be reached.

    -> (the one line on stderr, the last stage that was entered).
    """
    tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))
    order = []

    def entering(place, name, stage):
        inner = getattr(place, name)

        def call(*arguments, **more):
            order.append(stage)
            return inner(*arguments, **more)

        monkeypatch.setattr(place, name, call)

    entering(run.settings, "build", "settings")
    entering(run, "_plan", "devices")
    entering(run, "_prepare", "files")
    entering(run.experiment_text, "load_corpus", "text")
    monkeypatch.setattr(run, "train_compressors", lambda *_, **__: pytest.fail("it was trained"))

    def call(change):
        config = tiny_run.config(tmp_path)
        with config.unlocked():
            change(config)
        assert run.main(config, str(tmp_path / "run")) == 2
        _, err = capsys.readouterr()
        assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 600, err
        assert [x for i, x in enumerate(order) if x not in order[:i]] == list(
            STAGES[: STAGES.index(order[-1]) + 1]
        )
        return err, order[-1]

    return call


@pytest.mark.parametrize(
    ("name", "wrong", "stage"), [row for row in ROWS if row[1] and "..." not in row[1]]
)
def test_a_wrong_value_is_told_at_its_stage(start, tmp_path, name, wrong, stage):
    value = NUMBERS[wrong] if wrong in NUMBERS else eval(wrong, {})
    group, _, field = name.rpartition(".")

    def change(config):
        if name == "data.root":
            config.data.domains.digits.train = ("files:{root}/a.txt",)
        if name == "tokenizer.vocab_size":
            config.tokenizer.kind = "sentencepiece"
        if name == "tokenizer.folder":
            config.tokenizer.kind = "sentencepiece"
        (config[group] if group else config)[field] = value

    said, found = start(change)
    assert found == stage, said
    words = {
        **({"data.root": "/nowhere", "data.cache": "/dev/null"} if stage == "files" else {}),
        "tokenizer.kind": "",
        "train.tokens": "config.train",
        "train.seconds": "",
        "scoring.hidden": "scoring",
    }
    assert words.get(name, field if stage == "settings" else "") in said
    assert (tmp_path / "run").exists() == (stage != "settings")


@pytest.mark.parametrize(
    "name",
    [
        "c++",
        "novels en",
        "a/b",
        "",
        "x" * 101,
        "unknown",
        "random_tokens",
        "Random_Tokens",
        "DIGITS",
        "größe",
        "a\nb",
        "~",
    ],
)
@pytest.mark.parametrize("group", ["domains", "unseen"])
def test_a_domain_that_no_expert_can_be_named_after_is_refused_by_its_name(start, group, name):
    def change(config):
        config.data[group][name] = config.data.domains.digits.copy_and_resolve_references()

    said, stage = start(change)
    assert (stage == "settings" and naming.shown(name)[1:-1] in said) or name == "DIGITS"


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/../b"])
def test_names_that_a_config_itself_may_refuse(name):
    with pytest.raises(UserError, match="which no expert can be"):
        naming.check_domains([], [name])


@pytest.mark.parametrize("name", ["cpp", "con", "a-b_c", "x" * 100, "0", "CON", "-rf", "known"])
def test_a_name_that_an_expert_can_have_passes(name):
    naming.check_domains([name], ["other"])
    assert naming.check_name(name) == name


def test_a_domain_is_added_to_the_defaults_as_the_readme_says():
    config = default()
    config.data.domains.python = domain("stdlib@train", "stdlib@valid", "stdlib@test")
    config.data.unseen.other = domain(test="stdlib@test")
    config.train.steps = 1
    built = run.settings.build(config)
    assert list(built.data.domains) == ["python"] and list(built.data.unseen) == ["other"]
    with pytest.raises((AttributeError, KeyError)):
        config.data.domain = 3  # a name that is misspelt still raises
    with pytest.raises((AttributeError, KeyError)):
        config.trains = 3


@pytest.mark.parametrize("number", [0, 2**32 - 1])
def test_seeds_at_their_bounds_pass(number):
    run.settings.build(
        {
            "seed": number,
            "train": {"steps": 1},
            "data": {"domains": {"d": {"train": ["a"], "valid": ["b"], "test": ["c"]}}},
        }
    )


def test_a_missing_file_is_told_before_another_one_is_read(start):
    said, stage = start(lambda config: config.data.unseen.marks.update(test=("files:/gone/*",)))
    assert "/gone" in said and stage == "files"


def test_text_too_short_to_calibrate_on_is_told_before_training(start, tmp_path):
    (tmp_path / "letters-valid.txt").write_text("abc")
    said, stage = start(lambda config: None)
    assert "letters: no validation window" in said and stage == "text"


@pytest.mark.parametrize("name", [*checks.FILES, *checks.FOLDERS])
def test_what_lies_in_the_way_is_told_before_text_is_read(start, tmp_path, name):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / name
    path.mkdir() if name in checks.FILES else path.write_text("x")
    said, stage = start(lambda config: None)
    assert str(path) in said and stage == "files"


@pytest.mark.parametrize("name", [*checks.FILES, *checks.FOLDERS])
def test_what_cannot_be_written_is_told_before_text_is_read(start, tmp_path, monkeypatch, name):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / name
    path.write_text("") if name in checks.FILES else path.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, how: str(p) != str(path) and access(p, how))
    said, stage = start(lambda config: None)
    assert f"{path} cannot be written" in said and stage == "files"


def test_a_full_disk_is_told_before_text_is_read(start, tmp_path, monkeypatch):
    """A run that has a checkpoint needs room for one more only."""
    need = checks.least_bytes(run.settings.build(tiny_run.config(tmp_path)))
    assert need > 10_000
    usage = shutil.disk_usage(tmp_path)
    room = usage._replace(free=2 * need - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    said, stage = start(lambda config: None)
    assert "make room" in said and stage == "files"
    e = run.settings.build(tiny_run.config(tmp_path))
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "5.json").write_text("{}")
    checks.place(e, tmp_path / "run")


def test_less_is_asked_for_than_a_checkpoint_takes(tmp_path):
    tiny_run.write(tmp_path)
    e = tiny_run.experiment(tmp_path, steps=1)
    tiny_run.train(e, tmp_path)
    place = tmp_path / "run" / "checkpoints" / "1"
    numbers = len(e.data.domains) * models.count_parameters(e.model)
    assert checks.least_bytes(e) == 6 * numbers  # bytes; AdamW stores three of four each
    whole = dataclasses.replace(e, model=dataclasses.replace(e.model, vocab_size=0))
    assert 0 < checks.least_bytes(whole) == checks.least_bytes(e)
    arrays = sum(f.stat().st_size for f in place.rglob("*") if f.is_file())
    assert checks.least_bytes(e) < 12 * numbers and arrays > 0


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 B")],
)
def test_too_little_memory_is_one_line(tmp_path, monkeypatch, capsys, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(run, "_dispatch", refuse)
    assert run.main(default(), str(tmp_path)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "memory" in err and "config.train.batch" in err


def test_other_errors_of_a_device_are_not_hidden(tmp_path, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: no")

    monkeypatch.setattr(run, "_dispatch", fail)
    with pytest.raises(jax.errors.JaxRuntimeError):
        run.main(default(), str(tmp_path))


def test_a_source_is_checked_without_reading_it(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"\xff\0")  # no text: only reading it would tell
    sources.check(f"files:{tmp_path}/a.txt")
    sources.check("random:4")
    for spec in ("files:/nowhere", "what:ever", "random:1", "samples/none"):
        with pytest.raises(UserError):
            sources.check(spec)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="permissions"):
        sources.check(f"files:{tmp_path}/a.txt")
    monkeypatch.setitem(sources.REGISTERED, "spoken", lambda target: pytest.fail("it was read"))
    sources.check("spoken:word@train")
