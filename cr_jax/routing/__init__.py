"""Which expert a text goes to, whether any knows it, and why."""
