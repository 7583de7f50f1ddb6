"""Benchmarks live beside the package, not in it: tests find them from the checkout."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
