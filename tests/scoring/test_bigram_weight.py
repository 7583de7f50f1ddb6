"""A bigram model's share in an expert's predictions: one mixture wherever residuals are made."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bank

from cr_jax import router
from cr_jax.bank import ExpertBank, import_expert
from cr_jax.bank.manifest import write_manifest
from cr_jax.config import Scoring, check_scoring
from cr_jax.errors import UserError
from cr_jax.routing.cascade import Cascade
from cr_jax.scoring import bigram
from cr_jax.scoring.calibrate import calibrate

CODE = Scoring(predicted=True)


def bank_of(scoring, experts=3):
    config = dataclasses.replace(tiny_bank.TINY, predictive=True)
    return tiny_bank.in_memory(experts, config, rule=scoring)


def test_pairs_mix_the_encoders_and_the_bigram_models_predictions():
    plain, batch = bank_of(CODE), tiny_bank.spread()
    encoder = router.score_tokens(plain, batch).residual
    for e, name in enumerate(plain.names):
        table = bigram.table([plain.bigrams[name]])
        counted = bigram.token_nats(jax.tree.map(lambda x: x[0], table), jnp.asarray(batch.tokens))
        sums = np.sum(np.where(batch.mask, counted, 0), -1)
        np.testing.assert_allclose(
            sums, bigram.residuals(table, batch.tokens, batch.mask)[0], rtol=1e-5
        )
        for share in (0.2, 0.7):
            got = router.score_tokens(
                bank_of(dataclasses.replace(CODE, bigram_weight=share)), batch
            )
            p = (1 - share) * np.exp(-encoder[e].astype(float)) + share * np.exp(-counted)
            np.testing.assert_allclose(
                got.residual[e][batch.mask], -np.log(p)[batch.mask], rtol=1e-4
            )
            np.testing.assert_array_equal(got.nll[e], router.score_tokens(plain, batch).nll[e])


def test_every_way_to_a_residual_mixes_alike():
    rule, batch = dataclasses.replace(CODE, bigram_weight=0.4), tiny_bank.spread()
    bank = bank_of(rule)
    by_token = router.score_tokens(bank, batch).residual
    means = np.sum(np.where(batch.mask, by_token, 0), -1) / batch.mask.sum(-1)
    found = router.route_windows(bank, batch)
    np.testing.assert_allclose(found.residuals, means, rtol=1e-5)
    assert (np.abs(means - router.route_windows(bank_of(CODE), batch).residuals) > 0.001).all()
    whole = Cascade(bank, 3)
    np.testing.assert_allclose(whole.route_windows(batch).residuals, means, rtol=1e-5)
    chosen = router.route(bank.select(["e2", "e0"]), tiny_bank.TEXT)
    every = router.route(bank, tiny_bank.TEXT)
    assert chosen.residuals == pytest.approx({n: every.residuals[n] for n in ("e2", "e0")})
    cut = Cascade(bank, 1).route(tiny_bank.TEXT)
    assert cut.residuals[cut.nearest] == pytest.approx(every.residuals[cut.nearest])
    made = calibrate(
        bank.model,
        bigram.with_bigram(bank.expert_params("e1"), bank.bigrams["e1"]),
        batch,
        rule=rule,
    )
    np.testing.assert_allclose(made.residuals[16], np.sort(means[1][batch.mask.all(-1)]), rtol=1e-5)


def test_a_rule_with_pairs_wants_a_bigram_model_and_a_prediction(tmp_path):
    rule = dataclasses.replace(CODE, bigram_weight=0.4)
    bank = tiny_bank.stored(tmp_path / "bank", bank_of(rule))
    assert router.route(ExpertBank.load(tmp_path / "bank"), "abc").residuals == pytest.approx(
        router.route(bank, "abc").residuals
    )
    before = router.route(bank, tiny_bank.TEXT)
    fewer = bank.remove("e1")  # the weights of a bank follow its experts
    after = router.route(fewer, tiny_bank.TEXT).residuals
    assert after == pytest.approx({n: before.residuals[n] for n in ("e0", "e2")})
    bare = tiny_bank.without_bigrams(bank_of(rule))
    for call in (lambda: router.route(bare, "abc"), lambda: Cascade(bare, 1)):
        with pytest.raises(UserError, match="no bigram model for e0, e1, e2"):
            call()
    with pytest.raises(UserError, match="'late' has no bigram model"):
        fewer.add(dataclasses.replace(bank.expert("e0"), name="late", bigram=None))
    with pytest.raises(UserError, match="give calibrate the expert"):
        calibrate(bank.model, bank.expert_params("e0"), tiny_bank.windows(3), rule=rule)
    stored = tmp_path / "bank" / "experts" / "e0"
    (stored / "bigram.safetensors").unlink()
    write_manifest(stored, bank.tokenizer.fingerprint)
    with pytest.raises(UserError, match="has no bigram model, and the bank"):
        import_expert(tmp_path / "bank", stored, "again")
    tiny_bank.stored(tmp_path / "other", tiny_bank.without_bigrams(bank_of(CODE)))
    for bad in (
        Scoring(bigram_weight=0.5),
        *(dataclasses.replace(CODE, bigram_weight=x) for x in (-0.1, 1.0, float("nan"))),
    ):
        with pytest.raises(UserError, match=r"scoring\.bigram_weight"):
            check_scoring(bad, bank.model)
    with pytest.raises(UserError, match="was calibrated for"):
        import_expert(tmp_path / "bank", tmp_path / "other" / "experts" / "e1")
