"""The one place that says jit, pmap, mesh or process."""
