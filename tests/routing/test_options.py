"""What can be asked of a route, and what cannot."""

import pytest

from cr_jax.errors import UserError
from cr_jax.routing.options import RouteOptions


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"alpha": 1.5}, "alpha is a share"),
        ({"alpha": float("nan")}, "alpha is a share"),
        ({"max_windows": -1}, "max_windows=-1"),
        ({"max_windows": True}, "max_windows=True"),
        ({"stop": 1.0}, "stop is the confidence"),
        ({"stop": -0.1}, "stop is the confidence"),
        ({"last_tokens": -1}, "last_tokens=-1"),
        ({"last_tokens": 9, "max_windows": 3}, "leave out max_windows"),
        ({"last_tokens": 9, "stop": 0.9}, "leave out max_windows and stop"),
    ],
)
def test_options_that_cannot_be_are_one_line(bad, said):
    with pytest.raises(UserError, match=said) as caught:
        RouteOptions(**bad)
    assert "\n" not in str(caught.value)


def test_the_ends_of_the_ranges_are_allowed():
    assert RouteOptions(alpha=0).alpha == 0 and RouteOptions(alpha=1, stop=0.999).stop == 0.999
    assert RouteOptions() == RouteOptions(0.05, 0, 0.0, "none")
