"""Kinds by name, and sizes that make none."""

import pytest
import tiny_long

from cr_jax.errors import UserError
from cr_jax.models import lm
from cr_jax.models.lm import interface


def test_a_registered_kind_is_made_counted_and_not_taken_twice(monkeypatch):
    monkeypatch.setattr(interface, "KINDS", dict(interface.KINDS))
    lm.register_lm("mine", lm.Kind(lm.Decoder, lambda config, window: 7.0 * window))
    config = tiny_long.of(kind="mine")
    assert isinstance(lm.make_lm(config), lm.Decoder) and lm.forward_flops(config, 3) == 21
    for name in ("mine", "decoder", "two words"):
        with pytest.raises(UserError, match="cannot be named"):
            lm.register_lm(name, interface.KINDS["mine"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(kind="rnn"), "config.lm.kind must be one of decoder, sliding, tlinformer"),
        (dict(kind="tlinformer", chunk=0), "chunk=0: kind='tlinformer' needs a window of 1"),
        (dict(kind="recurrent", stages=2), "stages=2 must divide blocks=3"),
        (dict(kind="tconstformer", stages=3), "stages of 2 or more layers"),
        (dict(kind="tconstformer", stages=0), "stages=0 must divide"),
        (dict(kind="recurrent", window=18), "chunk=4 must divide the window of 18 tokens"),
        (dict(style="layer_norm"), "kind='decoder' has style='rms' alone"),
    ],
)
def test_sizes_that_make_no_model_are_one_line(changes, says):
    with pytest.raises(UserError, match=says):
        lm.make_lm(tiny_long.of(**changes))
