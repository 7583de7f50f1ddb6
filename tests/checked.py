"""The run-time type checker that tests/conftest.py lays over the package."""

import beartype

# PEP 484: an int is welcome where a float is asked for.
types = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
