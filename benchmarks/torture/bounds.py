"""Settings at their bounds, one to three at a time."""

import dataclasses
import json
import typing
from collections.abc import Sequence
from pathlib import Path

import jax
from hypothesis import strategies as st

from benchmarks.torture import tiny
from benchmarks.torture.probes import Probe
from cr_jax import config as settings
from cr_jax import models
from cr_jax.config import Experiment
from cr_jax.config.command_line import load
from cr_jax.experiment import checks
from cr_jax.models import lm
from cr_jax.parallel import plan as parallel
from cr_jax.studies import registry
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state

BOUNDS: dict[str, tuple] = {
    "int": (
        0,
        1,
        -1,
        2,
        3,
        7,
        2**31 - 1,
        2**31,
        2**32,
        2**63,
        10**30,
        10**5000,
        True,
        None,
        1.0,
        "1",
    ),
    "float": (
        *(0.0, -0.0, 1.0, -1.0, 1e-300, 5e-324, 1e308, float("inf"), float("-inf"), float("nan")),
        *(0, 10**400, True, None, "0.5"),
    ),
    "str": ("", " ", "x", "/", "~", "\0", "\udcff", "a/../b", "x" * 5000, 0, None, ("a",)),
    "bool": (True, False, 0, 1, None, "True"),
    "other": (
        None,
        0,
        10**5000,
        "",
        "x",
        (),
        ("",),
        ("x", "x"),
        {},
        {"a": 1},
        {"": {}},
        {"a/b": {}},
    ),
}

# What a command line may hold for any of them.
WORDS = (
    *("", " ", "0", "-1", "1e999", "nan", "-inf", "1_000", "0x10", "1.5", "True", "None", "x"),
    *("[1", "('a',", "{}", "{'a': 1}", "\n", "\udcff", "\x1b[2J", "9" * 5000, "~", "a=b", "--"),
    *("'a','b'", "(1, 2)", "__import__('os')", "lambda: 0", "é", "1e", "٣"),
)


def fields(kind: type = Experiment, prefix: str = "") -> dict[str, str]:
    """Every setting -> the kind of its bounds."""
    out: dict[str, str] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            out |= fields(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            literal = typing.get_origin(hint) is typing.Literal
            known = "str" if literal else getattr(hint, "__name__", "")
            out[prefix + name] = known if known in BOUNDS else "other"
    return out


def at_bounds() -> st.SearchStrategy[Probe]:
    """One to three settings at their bounds: refused by name, or the run can begin with them."""
    known, default = fields(), settings.to_dict(settings.build(tiny.get_config()))
    one = st.sampled_from(sorted(known)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(BOUNDS[known[name]]))
    )

    def made(changes):
        def call(folder):
            begun(settings.build(with_changes(default, changes)), folder)
            return ()

        return Probe("setting", ", ".join(f"{n}={_short(value)}" for n, value in changes), call)

    def typed(pair):
        name, word = pair

        def call(folder):
            flag = f"--config.{name}={word}"
            begun(settings.build(load(tiny.__file__, [flag])), folder)
            return ()

        return Probe("setting", f"--config.{name}={_short(word)}", call)

    words = st.tuples(st.sampled_from(sorted(known)), st.sampled_from(WORDS))
    changes = st.lists(one, min_size=1, max_size=3)
    return st.one_of(changes.map(made), changes.map(made), words.map(typed))


def _short(value: object) -> str:
    try:
        return ascii(value)[:80]
    except ValueError:  # of more digits than Python shows
        return "a number of thousands of digits"


def begun(experiment: Experiment, folder: Path) -> None:
    """What a run does before it reads text, and the shapes of what it would train.  `UserError`
    where it refuses."""
    models.check_bottleneck(experiment.model, experiment.scoring.rate)
    lm.make_lm(experiment.lm)
    lm.make_lm(experiment.lm_large)
    registry.check(experiment)
    plan = parallel.make_plan(
        experiment.parallel,
        len(experiment.data.domains),
        experiment.train.batch,
        experiment.mesh_expert,
        mesh_fsdp=experiment.mesh_fsdp,
    )
    checks.devices(experiment, plan)
    checks.place(experiment, folder)
    model = dataclasses.replace(experiment.model, vocab_size=experiment.model.vocab_size or 258)
    loss = CompressorLoss(model, experiment.train, 1)
    jax.eval_shape(lambda key: init_state(loss, experiment.optimizer, key), jax.random.key(0))


def with_changes(default: dict, changes: Sequence[tuple[str, object]]) -> dict:
    """A copy of nested settings with other values at dotted places."""
    raw = json.loads(json.dumps(default))
    for name, value in changes:
        *groups, last = name.split(".")
        place = raw
        for group in groups:
            place = place[group]
        place[last] = value
    return raw
