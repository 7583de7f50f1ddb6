"""Bad settings die at start-up with one line that names the field and the remedy."""

import dataclasses

import jax
import pytest

from cr_jax import config as settings
from cr_jax import models
from cr_jax.errors import UserError
from cr_jax.scoring.wording import wording

HOME = {"train": ["a"], "valid": ["b"], "test": ["c"]}


def raw(**changes):
    """A good experiment's settings, some of them changed: group__field=value."""
    out = {"train": {"steps": 1}, "data": {"domains": {"d": HOME}}}
    for name, value in changes.items():
        group, _, field = name.partition("__")
        if field:
            out.setdefault(group, {})[field] = value
        else:
            out[group] = value
    return out


def complaint(**changes) -> str:
    with pytest.raises(UserError) as caught:
        settings.build(raw(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_good_settings_build():
    built = settings.build(raw(model__latents=4, optimizer__clip=1))
    assert built.model.latents == 4 and built.optimizer.clip == 1.0
    assert isinstance(built.optimizer.clip, float)
    assert built.data.domains["d"].train == ("a",)


def test_rules_are_told_apart_in_words():
    rules = [
        settings.SEEN,
        settings.Scoring(parts=4),
        settings.Scoring(predicted=True),
        settings.Scoring(rate=2),
    ]
    found = [wording(rule) for rule in rules]
    assert len({words.cost for words in found}) == 4
    assert [words.paper for words in found] == [True, False, False, False]
    assert ["predict" in words.cost for words in found] == [False, False, True, False]
    assert [wording(settings.to_dict(rule)) for rule in rules] == found
    for nothing in (None, {}, [], "x", {"parts": "4", "predicted": 1}):
        assert wording(nothing) == found[0]


def test_a_typicality_weight_is_named_beside_any_rule_and_is_no_part_of_a_residual():
    for rule in (settings.SEEN, settings.Scoring(predicted=True)):
        both = dataclasses.replace(rule, typicality_weight=0.5)
        plain, words = wording(rule), wording(both)
        assert (words.cost, words.ranking_score) == (plain.cost, f"{plain.cost} + {words.added}")
        assert words.added.startswith("0.5 x") and not words.paper
        assert (plain.ranking_score, plain.added) == (plain.cost, "")
        assert both != rule == both.residual_rule == rule.residual_rule
        assert wording(settings.to_dict(both)) == words
        assert (
            settings.scoring_rule(settings.to_dict(both), settings.ModelConfig(predictive=True))
            == both
        )
    for nothing in ("1", True, -1.0, float("nan"), float("inf"), None):
        assert wording({"typicality_weight": nothing}) == wording(settings.SEEN)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_typicality_weight_that_cannot_be_is_one_line(bad):
    said = r"config\.scoring\.typicality_weight must be a finite number"
    with pytest.raises(UserError, match=said) as caught:
        settings.build(raw(scoring__typicality_weight=bad))
    assert "\n" not in str(caught.value)


def test_settings_come_back_from_their_own_description():
    built = settings.build(raw())
    assert settings.to_dict(settings.build(settings.to_dict(built))) == settings.to_dict(built)


def test_built_settings_cannot_be_changed():
    built = settings.build(raw())
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.seed = 1
    with pytest.raises(TypeError):
        built.data.domains["other"] = built.data.domains["d"]


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"model__latent": 4}, ["config.model", "'latent'", "did you mean 'latents'"]),
        ({"trian": {}}, ["'trian'", "did you mean 'train'"]),
        ({"model__zzz": 4}, ["'zzz'", "there are:", "window"]),
        ({"data__domains": {"d": {**HOME, "tests": ["x"]}}}, ["domains.d", "did you mean 'test'"]),
        ({"model__latents": "four"}, ["config.model.latents must be int", "'four'"]),
        ({"model__latents": True}, ["config.model.latents must be int"]),
        ({"model__latents": 4.0}, ["config.model.latents must be int"]),
        ({"model__remat": 1}, ["config.model.remat must be bool"]),
        ({"model__bottleneck": 1}, ["config.model.bottleneck must be str"]),
        ({"model": 3}, ["config.model must be a group"]),
        ({"data__domains": {"d": {**HOME, "train": "a"}}}, ["domains.d.train must be a list"]),
        ({"model__window": 0}, ["config.model.window must be at least 1, got 0"]),
        ({"model__encoder_blocks": -1}, ["cannot be negative"]),
        ({"model__decoder_blocks": 1001}, ["more than 1,000 blocks"]),
        ({"model__heads": 3}, ["config.model.d_model=512", "multiple of 2 x heads=6"]),
        ({"model__latents": 513}, ["latents=513", "window=512"]),
        ({"train": {}}, ["exactly one of steps, tokens, seconds", "none"]),
        ({"train": {"steps": 1, "seconds": 2.0}}, ["exactly one of", "steps, seconds"]),
        ({"train__batch": 0}, ["config.train.batch must be at least 1"]),
        ({"train__accumulate": 3}, ["config.train.batch=64", "accumulate=3"]),
        ({"train__nested": 1.5}, ["config.train.nested", "[0, 1]"]),
        ({"eval__every": "10"}, ["config.eval.every", "10 seconds"]),
        ({"eval__every": "1.5 steps"}, ["config.eval.every"]),
        ({"eval__every": "-1 seconds"}, ["config.eval.every"]),
        ({"eval__every": "1 hour"}, ["config.eval.every"]),
        ({"eval__target_tra": 0.9}, ["config.eval.target_tra", "needs config.eval.every"]),
        ({"optimizer__warmup": -0.1}, ["config.optimizer.warmup", "0 or more"]),
        ({"eval__alpha": 5.0}, ["config.eval.alpha", "[0, 1]"]),
        ({"mesh_expert": 0}, ["config.mesh_expert must be at least 1"]),
        ({"data__domains": {}}, ["config.data.domains is empty"]),
        ({"data__domains": {"d": {"train": ["a"]}}}, ["domains.d has no source for: valid, test"]),
        ({"data__unseen": {"u": {"train": ["a"]}}}, ["unseen.u has no source for: test"]),
        ({"data__unseen": {"d": {"test": ["a"]}}}, ["d cannot be both trained and unseen"]),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_bad_setting_is_one_line_that_says_what_to_change(changes, words):
    found = complaint(**changes)
    assert all(w in found for w in words), found


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer__learning_rate": float("nan")},
        {"optimizer__clip": -1.0},
        {"optimizer__muon_learning_rate": float("inf")},
        {"optimizer__b1": 1.0},
        {"train": {"steps": -5, "tokens": 7}},
        {"train": {"seconds": float("nan")}},
        {"train": {"seconds": float("inf")}},
        {"train__hidden_low": 0.6},
        {"eval__windows": -1},
        {"eval__examples": -1},
        {"data__max_train_tokens": -1},
        {"train__checkpoint_every": float("nan")},
        {"tokenizer__train_bytes": 0},
    ],
    ids=lambda c: next(iter(c)),
)
def test_values_that_would_fail_later_or_silently_are_refused(changes):
    assert "config." in complaint(**changes)


def test_the_outer_settings_are_locked():
    config = settings.default()
    with pytest.raises(AttributeError, match="latent"):
        config.model.latent = 3
    config.data.domains = {"d": settings.domain("a", ["b"], test="c")}
    config.train.steps = 5
    assert settings.build(config).data.domains["d"].valid == ("b",)


def test_a_stored_model_description_is_checked_too():
    with pytest.raises(UserError, match=r"model has no field 'widow'; did you mean 'window'"):
        settings.model_config({"widow": 3})


@pytest.mark.parametrize("form", models.BOTTLENECKS)
def test_a_rate_above_the_bottleneck_s_is_refused(form):
    model = settings.ModelConfig(bottleneck=form, latents=4, d_latent=32)
    rates = models.make_bottleneck(model).rates
    models.check_bottleneck(model, rates)
    for rate in (rates + 1, 10**6):
        with pytest.raises(UserError, match=f"rate={rate} must not exceed {rates}"):
            models.check_bottleneck(model, rate)


def test_a_bottleneck_that_does_not_exist_is_refused_with_those_that_do():
    """By the package that has them, at start-up and before anything is allocated."""
    model = settings.build(raw(model__bottleneck="folds", model__vocab_size=64)).model
    for check in (models.check_bottleneck, lambda m: models.init(m, jax.random.key(0))):
        with pytest.raises(UserError, match=r"must be one of query, .*; got 'folds'"):
            check(model)
    with pytest.raises(UserError, match="fold_channels must be at least 1, got 0"):
        models.check_bottleneck(settings.ModelConfig(bottleneck="fold", fold_channels=0))


def test_latent_queries_that_were_stored_before_rotary_values_are_plain():
    stored = settings.to_dict(settings.ModelConfig())
    assert settings.model_config(stored).rotary_values
    del stored["rotary_values"]
    assert not settings.model_config(stored).rotary_values
    stored["bottleneck"] = "fold"
    assert settings.model_config(stored) == settings.ModelConfig(bottleneck="fold")
