"""What studies share: lengths of cut windows, the domains that one needs, shares as text."""

import pytest
import tiny_run

from cr_jax import config as settings
from cr_jax.errors import UserError
from cr_jax.studies import common, lengths


def test_windows_are_cut_to_the_usual_lengths_below_their_own_and_left_whole():
    assert common.lengths_of(64) == (*(n for n in lengths.LENGTHS if n < 64), 64)
    assert common.lengths_of(512)[-1] == 512 and len(set(common.lengths_of(512))) > 3
    assert common.lengths_of(5) == (5,)


def test_a_study_of_too_few_domains_is_refused_by_their_number(tmp_path):
    two = settings.build(tiny_run.config(tmp_path))
    common.at_least(2)(two)
    with pytest.raises(
        UserError, match=r"needs 3 or more of config\.data\.domains, and there are 2"
    ):
        common.at_least(3)(two)


def test_a_share_has_one_decimal_and_none_is_a_dash():
    assert [common.percent(x) for x in (0.12345, 0, 1, None)] == ["12.3%", "0.0%", "100.0%", "–"]
