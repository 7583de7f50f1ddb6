"""How well text of no trained domain is recognised."""
