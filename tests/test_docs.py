"""What docs/extending.md says to write does what it says."""

import pathlib
import re
import typing

import pytest

from cr_jax.config import TokenizerConfig
from cr_jax.data import sources, specs
from cr_jax.errors import UserError
from cr_jax.models import bottlenecks, check_bottleneck, register_bottleneck
from cr_jax.studies import registry

ROOT = pathlib.Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.fixture
def registries(monkeypatch):
    """What the page registers ends with the test."""
    monkeypatch.setattr(registry, "STUDIES", dict(registry.STUDIES))
    monkeypatch.setattr(bottlenecks, "BOTTLENECKS", dict(bottlenecks.BOTTLENECKS))
    own = dict(specs.REGISTERED)
    for module in (specs, sources):
        monkeypatch.setattr(module, "REGISTERED", own)


@pytest.mark.slow
def test_the_blocks_of_extending_run_in_order(registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(page))
    assert len(blocks) >= 5
    names: dict = {"__name__": "extending"}
    for block in blocks:
        line = page[: block.start(1)].count("\n")
        code = compile("\n" * line + block[1], "docs/extending.md", "exec")
        exec(code, names)
    assert names["report"]["fingerprint"].keys() == {"birds", "tools", "numbers"}
    # The toy's own check, by the command's path.
    odd = names["config"].copy_and_resolve_references()
    odd.model.latents = 5
    with pytest.raises(UserError, match="latents=5 must divide window=16"):
        check_bottleneck(names["build"](odd).model)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("long_context", marks=pytest.mark.slow),
        pytest.param("memory", marks=pytest.mark.slow),
        "forgetting",
    ],
)
def test_the_block_of_a_page_runs(name):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    (block,) = BLOCK.finditer(page)
    line = page[: block.start(1)].count("\n")
    exec(compile("\n" * line + block[1], f"docs/{name}.md", "exec"), {"__name__": "page"})


def test_names_that_are_taken_are_refused(registries):
    with pytest.raises(UserError, match="cannot be named 'fold'"):
        register_bottleneck("fold", bottlenecks.Fold)
    with pytest.raises(UserError, match="cannot be named 'files'"):
        sources.register_source("files", lambda target: [])


def test_the_studies_that_the_page_names_are_all_there_are():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    named = re.search(r"`config.studies` may also name (.*?)\.\n", page, re.S)[1]
    assert {*re.findall(r"`(\w+)`", named), "fingerprint", "routing"} == set(registry.STUDIES)


def test_a_registered_source_is_known_by_its_text(registries):
    texts = ["one", "two"]
    sources.register_source(
        "spoken", lambda target: [sources.Document(t, str(i), str(i)) for i, t in enumerate(texts)]
    )
    sources.check("spoken:")
    before = sources.fingerprint("spoken:")
    assert sources.fingerprint("spoken:") == before
    texts[1] = "three"
    assert sources.fingerprint("spoken:") != before
    assert [d.text for d in sources.documents("spoken:")] == texts


def test_the_page_of_sources_names_every_kind_and_extras_that_there_are():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    table = page[page.index("## Sources") : page.index("## Tokenizers")]
    named = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    kinds = {specs.parse(spec.replace("SYMBOLS", "9")).kind for spec in named}
    assert kinds == set(sources._READERS)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    extras = {e for many in re.findall(r"cr_jax\[([\w,]+)\]", page) for e in many.split(",")}
    assert {"gpu", "tpu", "hf", "data", "wandb"} <= extras
    assert all(f'        "{extra}": ' in setup for extra in extras), extras
    kinds = set(re.findall(r"^\| `(\w+)`", page[page.index("## Tokenizers") :], re.M))
    assert set(typing.get_args(typing.get_type_hints(TokenizerConfig)["kind"])) <= kinds
