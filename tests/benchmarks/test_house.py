"""The limits that keep the code easy to enter."""

import pytest

from benchmarks import house


@pytest.fixture(autouse=True)
def checkout():
    if not (house.ROOT / ".git").exists():
        pytest.skip("counts what is in git")


def test_there_are_few_entries_and_layers():
    assert len(house.entries()) <= 18 and len(house.layers()) <= 16


def test_the_router_and_the_readme_are_short():
    assert house.lines(house.ROOT / "cr_jax/router.py") <= 80
    assert house.lines(house.ROOT / "README.md") <= 130


def test_no_public_function_takes_more_than_six_arguments():
    most, where = house.max_arguments()
    assert most <= 6, where
