"""Every variant of every file in configs/ builds, and has a model that can be made."""

import importlib.util
from pathlib import Path

import pytest

from cr_jax import config as settings
from cr_jax import models
from cr_jax.studies.capacity.grid import make_grid

CONFIGS = Path(__file__).parents[2] / "configs"


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


FILES = {path.stem: module(path) for path in sorted(CONFIGS.glob("*.py"))}
CASES = [
    (stem, variant)
    for stem, file in FILES.items()
    for variant in (None, *getattr(file, "VARIANTS", ()))
]


@pytest.mark.parametrize(("stem", "variant"), CASES, ids=[f"{s}:{v or ''}" for s, v in CASES])
def test_a_variant_builds(stem, variant):
    config = FILES[stem].get_config(*([variant] if variant else []))
    assert config.is_locked
    raw = config.to_dict()
    grid = raw.pop("ablation", None)
    built = settings.build(raw)
    assert stem.split("_")[0] in built.name
    size = models.count_parameters(
        settings.model_config(
            {**settings.to_dict(built.model), "vocab_size": built.model.vocab_size or 2048}
        )
    )
    assert 1e4 < size < 1e10
    if grid is not None:
        made = make_grid(grid)
        assert made.windows or made.sizes


@pytest.mark.parametrize("stem", [s for s, f in FILES.items() if hasattr(f, "VARIANTS")])
def test_variants_differ_and_the_docstring_names_them(stem):
    file = FILES[stem]
    made = {v: file.get_config(v).to_dict() for v in file.VARIANTS}
    assert len({config.pop("name") for config in made.values()}) == len(made)
    texts = {v: repr(config) for v, config in made.items()}
    assert len(set(texts.values())) == len(texts)
    for variant in file.VARIANTS:
        assert variant in file.__doc__, variant
    default = file.get_config().to_dict()
    default.pop("name")
    assert repr(default) in texts.values()


def test_what_the_record_s_variants_change():
    made = {v: settings.build(FILES["cr_87m"].get_config(v)) for v in FILES["cr_87m"].VARIANTS}
    ratio = {v: e.model.window / e.model.latents for v, e in made.items()}
    assert ratio == {
        "64x": 64,
        "m4": 128,
        "m2": 256,
        "l1024": 128,
        "fold": 64,
        "wiki": 64,
        "long": 64,
        "public": 64,
    }
    assert all(e.train.batch * e.model.window == 65536 for e in made.values())
    assert all(e.eval.target_tra == 0.9947 and e.eval.every == "3 seconds" for e in made.values())
    assert list(made["wiki"].data.domains) == ["wiki"] and "code" in made["wiki"].data.unseen
    assert {v: e.model.bottleneck for v, e in made.items()} == {
        v: "fold" if v == "fold" else "query" for v in made
    }


def test_what_grows_in_a_study_of_growth():
    made = {
        v: settings.build(FILES["continual"].get_config(v)) for v in FILES["continual"].VARIANTS
    }
    assert {v: len(e.data.domains) for v, e in made.items()} == {
        "small": 20,
        "eight": 8,
        "longer": 20,
        "twenty": 20,
        "rivals": 20,
        "narrow64": 64,
    }
    assert all("continual" in e.studies for e in made.values())
    assert {v for v, e in made.items() if e.continual.rivals} == {
        *("small", "eight", "longer", "rivals")
    }


def test_what_the_banks_are():
    made = {v: settings.build(FILES["bank"].get_config(v)) for v in FILES["bank"].VARIANTS}
    sizes = {v: len(e.data.domains) for v, e in made.items()}
    assert sizes == {
        "twenty": 20,
        "half": 20,
        "half_weight1": 20,
        "mixed": 20,
        "long": 20,
        "eight": 8,
        "eight_plain": 8,
        "hidden": 8,
        "nine_11m": 9,
        "narrow64": 64,
    }
    assert made["eight_plain"].scoring == settings.SEEN
    assert made["hidden"].train.hidden == 0.25 and made["hidden"].scoring.parts == 2
