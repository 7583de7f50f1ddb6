"""Causal language models of an expert's size."""
