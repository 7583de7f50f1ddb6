"""A folder of sealed experts <-> parameters stacked on a leading expert axis E."""

from cr_jax.bank.bank import ExpertBank, check_scouts, import_expert, selected, set_excess

__all__ = ["ExpertBank", "check_scouts", "import_expert", "selected", "set_excess"]
