"""Settings at their bounds are refused by a `UserError`, or the run can begin."""

import pytest

from benchmarks.torture import bounds, fuzz, tiny
from benchmarks.torture.probes import answer
from cr_jax import config as settings
from cr_jax.errors import UserError


def test_every_setting_has_bounds():
    known = bounds.fields()
    config = settings.default()
    assert {"train.steps", "lm.heads", "modular.tries", "data.cache", "seed"} <= set(known)
    for name in known:
        place = config
        for part in name.split("."):
            place = place[part]
    assert known["train.steps"] == "int" and known["train.nested"] == "float"
    assert known["parallel"] == "str" and known["data.domains"] == "other"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eval.alpha", 10**400),
        ("train.steps", 10**5000),
        ("data.unseen", ("",)),
        ("data.unseen", 0),
        ("modular.domains", None),
        ("data.cache", "x" * 300),
        ("modular.seed_from", "a/" + "é" * 200),
        ("data.tokens", "a\0b"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_what_was_found_is_refused_by_name(tmp_path, name, value):
    default = settings.to_dict(settings.build(tiny.get_config()))
    with pytest.raises(UserError, match=f"config.{name}"):
        settings.build(bounds.with_changes(default, [(name, value)]))


def test_settings_that_are_meant_can_begin(tmp_path):
    bounds.begun(settings.build(_with_text(tmp_path)), tmp_path)


def test_a_crash_after_the_checks_would_be_noticed(tmp_path, monkeypatch):
    def crash(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(bounds.checks, "place", crash)
    with pytest.raises(ZeroDivisionError):
        bounds.begun(settings.build(_with_text(tmp_path)), tmp_path)


def test_a_few_draws(tmp_path):
    wrong = []
    (tmp_path / "probe").mkdir()
    fuzz._generate(
        bounds.at_bounds(), 25, 0, lambda probe: wrong.extend(answer(probe, tmp_path / "probe")[1])
    )
    assert wrong == []


def _with_text(folder):
    tiny.write_text(folder / "text", 500)
    config = tiny.get_config()
    config.data.root = str(folder / "text")
    return config
