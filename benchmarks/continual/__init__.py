"""A growing bank: stored runs and reports joined, and what a thousand experts cost."""
