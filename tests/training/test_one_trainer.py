"""One module alone updates the parameters of a model that is trained."""

import ast
import pathlib

import pytest

import cr_jax

ROOT = pathlib.Path(cr_jax.__file__).parents[1]
TRAINER = "cr_jax/training/step.py"
# Not training: it times the optimiser alone, on made-up gradients, and throws its result away.
TIMED = "benchmarks/breakdown.py"
NAMES = {"apply_updates", "apply_gradients", "value_and_grad"}


def uses(path: pathlib.Path, names) -> set[str]:
    """The names that a file reads as attributes or imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return found & set(names)


def sources():
    return [
        p
        for folder in ("cr_jax", "benchmarks", "configs", "colabs")
        for p in (ROOT / folder).rglob("*.py")
    ]


def test_one_module_updates_parameters():
    found = {str(p.relative_to(ROOT)) for p in sources() if uses(p, NAMES)}
    assert found == {TRAINER, TIMED}


def test_optimisers_are_made_where_they_are_applied():
    found = {str(p.relative_to(ROOT)) for p in sources() if uses(p, {"make_optimizer"})}
    assert found == {TRAINER, TIMED}


@pytest.mark.parametrize(
    "text",
    ["import optax\noptax.apply_updates(p, u)", "from optax import apply_updates as a\na(p, u)"],
)
def test_an_update_is_noticed(tmp_path, text):
    """Positive control."""
    path = tmp_path / "loop.py"
    path.write_text(text)
    assert uses(path, NAMES) == {"apply_updates"}
