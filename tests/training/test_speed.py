"""FLOPs of a language model are those of a compressor's blocks and vocabulary."""

import dataclasses

import pytest

from cr_jax.config import LmConfig, ModelConfig, TrainConfig
from cr_jax.training import losses, speed

LM = LmConfig(vocab_size=512, d_model=64, heads=4, d_ff=96, blocks=5)
MODEL = ModelConfig(
    vocab_size=512,
    window=48,
    d_model=64,
    heads=4,
    d_ff=96,
    encoder_blocks=2,
    decoder_blocks=3,
    bottleneck="fold",
)


def test_as_many_as_a_compressor_of_as_many_blocks_without_its_bottleneck():
    parts = speed.forward_flops(MODEL)
    wanted = 3 * (parts["encoder"] + parts["decoder"] + parts["vocabulary"]) / 48
    assert speed.lm_flops_per_token(LM, 48) == pytest.approx(wanted)
    assert speed.classifier_flops_per_token(MODEL) == pytest.approx(wanted - 6 * 64 * 512)


def test_grouped_queries_save_the_keys_and_values():
    grouped = dataclasses.replace(LM, kv_heads=1)
    saved = speed.lm_flops_per_token(LM, 48) - speed.lm_flops_per_token(grouped, 48)
    assert saved == pytest.approx(6 * 5 * 2 * 64 * (64 - 16))


def test_logits_of_all_models_of_a_step_stay_below_a_bound():
    """Of models one after another each may have the whole chunk."""
    train = TrainConfig(batch=16, steps=1, loss_chunk=8192)
    assert losses.logits_chunk(train, 32768, 1) == 8192
    assert 20 * 32768 * losses.logits_chunk(train, 32768, 20) <= 1 << 31
    alone = dataclasses.replace(train, experts_by="map")
    assert losses.logits_chunk(alone, 32768, 20) == 8192
    assert losses.logits_chunk(train, 1 << 24, 1000) == 1
