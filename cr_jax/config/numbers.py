"""What counts as a number of things."""

from typing import Any

import numpy as np


def whole_number(value: Any) -> bool:
    """Whether it counts things: an int, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
