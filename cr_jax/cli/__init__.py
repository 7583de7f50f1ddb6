"""`cr-jax`: route texts, look at reconstructions, keep a bank.  Flags and printing, no logic."""

from cr_jax.cli.program import main

__all__ = ["main"]
