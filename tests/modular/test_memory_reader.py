"""What an adapter may read of a memory: the last windows before a row, by its own expert."""

import numpy as np
import tiny_lms

from cr_jax.modular import memory
from cr_jax.modular.memory_reader import Latents
from cr_jax.modular.options import LATENTS, MemoryOptions


def kept():
    """Two windows by e0, one by e1, one by e0."""
    text = tiny_lms.letters(0, 32) + tiny_lms.letters(1, 16) + tiny_lms.letters(0, 16)
    return memory.write(tiny_lms.bank(), text, MemoryOptions(LATENTS, dtype="float32"))


def test_the_last_windows_are_read_with_their_ages():
    found = kept()
    assert found.expert.tolist() == [0, 0, 1, 0]
    latents = Latents.of(found, "e0", 3)
    z, ages = latents.before(np.array([0, 1, 2, 4]))
    assert ages[:, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 2, 1], [3, 0, 1]]
    assert (z[3, 0] == found.codes.numbers[1]).all() and (z[2, 2] == found.codes.numbers[1]).all()


def test_no_window_from_the_row_on_is_given():
    """The numbers of later windows change nothing, not even in what is not read."""
    latents = Latents.of(kept(), "e0", 3)
    later = Latents(latents.z.copy(), latents.own, 3)
    later.z[2:] = np.nan
    assert np.isfinite(later.before(np.array([1, 2]))[0]).all()
    assert np.isnan(later.before(np.array([3]))[0]).any()  # a negative control


def test_another_expert_s_code_is_not_read():
    assert Latents.of(kept(), "e1", 3).before(np.array([4]))[1].tolist() == [[[0, 2, 0]]]
    assert not Latents.of(kept(), "e7", 3).before(np.array([4]))[1].any()
