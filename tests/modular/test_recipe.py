"""The recipe: branches begin as the seed, learn their own text, and go on after a stop."""

import contextlib
import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_corpora
import tiny_run

from cr_jax.config import BranchConfig, LmConfig, ModularConfig, OptimizerConfig
from cr_jax.errors import UserError
from cr_jax.models import lm, objective
from cr_jax.modular import recipe, training_stage, training_text
from cr_jax.modular.recipe import Recipe, train_all
from cr_jax.training import loop

W = 16
TINY = LmConfig(d_model=16, heads=2, d_ff=32, blocks=1, dtype="float32")
NAMES = tiny_corpora.NAMES


def experiment(**modular):
    e = tiny_corpora.experiment(log_every=1000)
    made = ModularConfig(
        **{
            "seed_tokens": 24 * 8 * W,
            "branch_tokens": 24 * 8 * W,
            "window": W,
            "seed_batch": 8,
            "branch_batch": 8,
            "looks": 0,
            **modular,
        }
    )
    fast = OptimizerConfig(name="adamw", learning_rate=0.01)
    return dataclasses.replace(e, lm=TINY, modular=made, lm_optimizer=fast)


@functools.cache
def text():
    """Nine documents of each domain, which is told from the others by its alphabet."""
    found = tiny_corpora.corpora()
    cut = lambda c: dataclasses.replace(
        c, starts=np.linspace(0, len(c.tokens), 10).astype(int), names=[str(i) for i in range(9)]
    )
    return dataclasses.replace(found, train={n: cut(c) for n, c in found.train.items()})


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """A program for eight devices compiles several times as long."""
    real = recipe.jax.devices
    patch = pytest.MonkeyPatch()
    plan = training_stage.parallel.make_plan
    patch.setattr(
        training_stage.parallel, "make_plan", lambda *a, **k: plan(*a, devices=real()[:1], **k)
    )
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lm")


@pytest.fixture(scope="module")
def whole(folder):
    """Three branches: one with the seed's rates, one that stands still, one of half the length."""
    e = experiment(
        domains={
            "letters": BranchConfig(rate=0.0),
            "marks": BranchConfig(tokens=12 * 8 * W, share=0.5),
        },
        arms=("dense", "random_split"),
    )
    return e, train_all(e, text(), folder)


@jax.jit
def _nll(params, tokens):
    config = recipe.sized(TINY, tiny_corpora.TOKENIZER)
    h = lm.make_lm(config).apply(params, tokens)
    return jnp.mean(objective.token_scores(h, lm.head(config, params), tokens).nll)


def nll(params, name):
    """nats/token on a domain's test windows."""
    return float(_nll(params, text().test[name].tokens[:, :W]))


def test_a_branch_learns_its_own_text_and_another_s_branch_does_not(whole):
    _, found = whole
    seed = {n: nll(found.seed, n) for n in NAMES}
    assert nll(found.experts["digits"], "digits") < seed["digits"] - 0.1
    assert nll(found.experts["marks"], "digits") > seed["digits"]
    assert nll(found.experts["marks"], "marks") < seed["marks"] - 0.05


def test_they_say_how_long_the_windows_of_their_training_were(whole, folder):
    e, found = whole
    assert (e.lm.window, found.config.window) == (0, W)
    longer = dataclasses.replace(e, lm=dataclasses.replace(e.lm, window=4 * W))
    again = train_all(longer, text(), folder)  # the same stages: it is no part of training
    assert again.config.window == 4 * W and tiny_run.same(again.seed, found.seed)


def test_a_branch_with_rate_0_stays_the_seed(whole):
    _, found = whole
    assert tiny_run.same(found.experts["letters"], found.seed)
    for name in ("digits", "marks"):
        a, b = tiny_run.flat(found.experts[name]), tiny_run.flat(found.seed)
        assert all(not np.array_equal(a[k], b[k]) for k in a)


def test_what_each_stage_has_cost(whole):
    e, found = whole
    seed, each = e.modular.seed_tokens, e.modular.branch_tokens
    assert found.notes["branches"]["train_tokens"] == {
        "digits": each,
        "letters": each,
        "marks": each // 2,
    }
    assert found.arms["branches"].train_tokens == seed + 2.5 * each
    assert found.arms["dense"].train_tokens == found.arms["branches"].train_tokens
    assert found.arms["dense"].train_flops == found.arms["branches"].train_flops
    assert found.arms["branches"].total_params == 3 * found.arms["dense"].total_params
    assert list(found.arms["random_split"].params) == ["part_00", "part_01", "part_02"]


def test_a_finished_stage_is_read_and_not_trained_again(whole, folder, monkeypatch):
    e, found = whole
    monkeypatch.setattr(
        training_stage, "train", lambda *_, **__: pytest.fail("it was trained again")
    )
    said = []
    again = train_all(e, text(), folder, said.append)
    assert sum("trained before" in line for line in said) == 4
    for name in NAMES:
        assert tiny_run.same(again.experts[name], found.experts[name])
    assert again.notes == found.notes
    assert not list(folder.glob("lm/*/checkpoints"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rate": 0.5}, "branches holds .*rates"),
        ({"seed_tokens": 512}, "seed holds .*tokens"),
        ({"seed_batch": 4}, "seed holds .*batch"),
    ],
)
def test_a_stage_of_other_settings_is_not_taken(whole, folder, changes, says):
    e, _ = whole
    other = dataclasses.replace(e, modular=dataclasses.replace(e.modular, **changes))
    with pytest.raises(UserError, match=says) as caught:
        train_all(other, text(), folder)
    assert "\n" not in str(caught.value)


def test_a_seed_of_another_run_is_taken(whole, folder, tmp_path):
    e, found = whole
    modular = dataclasses.replace(
        e.modular, seed_from=str(folder / "lm" / "seed"), arms=(), rate=0.0, domains={}
    )
    again = train_all(dataclasses.replace(e, modular=modular), text(), tmp_path)
    assert not (tmp_path / "lm" / "seed").exists()
    for name in NAMES:
        assert tiny_run.same(again.experts[name], found.seed)
    larger = dataclasses.replace(e, modular=modular, lm=dataclasses.replace(TINY, d_ff=48))
    with pytest.raises(UserError, match=r"seed holds .*model: d_ff"):
        train_all(larger, text(), tmp_path / "larger")


def test_changed_parameters_are_noticed(whole, folder, tmp_path):
    place = tmp_path / "seed"
    place.mkdir()
    for name in (training_stage.NOTE, training_stage.PARAMS):
        data = bytearray((folder / "lm" / "seed" / name).read_bytes())
        if name == training_stage.PARAMS:
            data[-1] ^= 1
        (place / name).write_bytes(data)
    config = recipe.sized(TINY, tiny_corpora.TOKENIZER)
    with pytest.raises(UserError, match="changed or cut short"):
        training_stage.stored_stage(place, config, {})


def test_experts_together_are_experts_alone(whole, tmp_path):
    e, found = whole
    made = Recipe(e, text(), recipe.sized(e.lm, text().tokenizer), halves).branches(found.seed)
    one = dataclasses.replace(made, members={"marks": made.members["marks"]})
    alone = training_stage.run_stage(one, e, text().tokenizer, tmp_path, lambda line: None)
    a, b = tiny_run.flat(alone.params["marks"]), tiny_run.flat(found.experts["marks"])
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=2e-4)
    with pytest.raises(AssertionError):  # and the comparison sees another expert
        np.testing.assert_allclose(
            a["['params']['start']"], found.seed["params"]["start"], atol=2e-4
        )


def test_a_stopped_stage_goes_on_to_the_same_weights(whole, tmp_path, monkeypatch):
    """It is stopped in the middle of its branches; the seed is not trained again."""
    e, found = whole
    e = dataclasses.replace(e, modular=dataclasses.replace(e.modular, arms=()))
    stages, steps = [], []
    check, run = loop.check_finite, training_stage.train

    def noting(job, plan, place, **more):
        stages.append(place.name)
        steps.clear()
        return run(job, plan, place, **more)

    monkeypatch.setattr(training_stage, "train", noting)
    monkeypatch.setattr(
        loop, "check_finite", lambda at, *rest: steps.append(at) or check(at, *rest)
    )
    with monkeypatch.context() as patch:
        asked = types.SimpleNamespace(is_set=lambda: stages[-1] == "branches" and len(steps) > 9)
        patch.setattr(loop, "stop_signals", lambda: contextlib.nullcontext(asked))
        with pytest.raises(loop.Interrupted, match="step 11"):
            train_all(e, text(), tmp_path)
    assert (tmp_path / "lm" / "branches" / "checkpoints").exists()
    assert not (tmp_path / "lm" / "branches" / training_stage.NOTE).exists()
    again = train_all(e, text(), tmp_path)
    assert stages == ["seed", "branches", "branches"] and len(steps) < 24
    for name in NAMES:
        assert tiny_run.same(again.experts[name], found.experts[name])


def test_each_model_keeps_its_own_best_look(tmp_path):
    """The letters' branch is validated on marks: the more it learns the worse, so the seed wins."""
    odd = dataclasses.replace(text(), valid={**text().valid, "letters": text().valid["marks"]})
    e = experiment(looks=4)
    found = train_all(e, odd, tmp_path)
    best = found.notes["branches"]["best"]
    assert tiny_run.same(found.experts["letters"], found.seed) and best["letters"]["step"] == 0
    assert not tiny_run.same(found.experts["digits"], found.seed) and best["digits"]["step"] > 0
    assert best["letters"]["last_valid_nll"] > best["letters"]["valid_nll"] + 0.1
    last = dataclasses.replace(e.modular, keep_best=False, seed_from=str(tmp_path / "lm" / "seed"))
    found = train_all(dataclasses.replace(e, modular=last), odd, tmp_path / "last")
    assert not tiny_run.same(found.experts["letters"], found.seed)


def halves(texts, parts):
    assert parts == 2
    return {"part_00": texts["digits"], "part_01": texts["letters"]}


def test_parts_are_made_once_and_trained_as_branches(whole, folder, tmp_path):
    e, found = whole
    modular = dataclasses.replace(
        e.modular, arms=("partition_2",), seed_from=str(folder / "lm" / "seed"), domains={}
    )
    e = dataclasses.replace(e, modular=modular)
    arm = train_all(e, text(), tmp_path, partition=halves).arms["partition_2"]
    assert arm.train_tokens == (24 + 3 * 24) * 8 * W  # as the seed and three branches read
    assert nll(arm.params["part_00"], "digits") < nll(found.seed, "digits") - 0.1
    assert nll(arm.params["part_01"], "letters") < nll(found.seed, "letters") - 0.05
    made_again = lambda *_: pytest.fail("the parts were made again")
    again = train_all(e, text(), tmp_path, partition=made_again).arms["partition_2"]
    assert tiny_run.same(again.params["part_00"], arm.params["part_00"])
    e = dataclasses.replace(e, lm_optimizer=dataclasses.replace(e.lm_optimizer, b2=0.9))
    with pytest.raises(UserError, match=r"branches holds .*optimizer: b2"):
        train_all(e, text(), tmp_path, partition=halves)


def test_shares_of_rows():
    texts = text().train
    assert training_text.own_and_all(texts, "digits", 0.0) is texts["digits"]
    mixed = training_text.own_and_all(texts, "digits", 0.3)
    shares = dict(zip([id(c) for c in mixed.corpora], mixed.weights, strict=True))
    assert shares[id(texts["digits"])] == pytest.approx(0.7 + 0.1)
    assert shares[id(texts["marks"])] == pytest.approx(0.1)
    assert training_text.all_domains(texts).weights == [1.0] * 3


def test_random_parts_hold_every_document_once():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, 13)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    corpus = dataclasses.replace(
        text().train["digits"],
        tokens=np.arange(starts[-1]).astype(np.uint16),
        starts=starts,
        names=[str(i) for i in range(13)],
    )
    parts = training_text.random_parts({"a": corpus}, 4, seed=1)
    held = [p.corpora[0] for p in parts.values()]
    assert sorted(np.concatenate([c.tokens for c in held])) == list(range(starts[-1]))
    for c in held:
        for i, name in enumerate(c.names):
            own = corpus.tokens[starts[int(name)] : starts[int(name) + 1]]
            np.testing.assert_array_equal(c.tokens[c.starts[i] : c.starts[i + 1]], own)
    other = training_text.random_parts({"a": corpus}, 4, seed=2)
    assert [p.corpora[0].names for p in parts.values()] != [
        p.corpora[0].names for p in other.values()
    ]


def test_of_each_domain_the_best_try_on_valid_becomes_the_expert(tmp_path):
    tries = {"still": BranchConfig(rate=0.0), "full": BranchConfig(batch=8)}
    e = experiment(tries=tries, looks=2, keep_best=False, arms=("dense",))
    e = dataclasses.replace(e, modular=dataclasses.replace(e.modular, branch_tokens=8 * 8 * W))
    seed_only = dataclasses.replace(e, modular=dataclasses.replace(e.modular, tries={}, arms=()))
    found = train_all(e, text(), tmp_path)
    note = found.notes["branches"]
    # Of text that the seed has not mastered every branch gains, so none of the still ones is best.
    assert set(note["chosen"].values()) == {"full"} and set(note["chosen"]) == set(NAMES)
    assert note["search_tokens"] == 2 * sum(note["train_tokens"].values())
    assert all(note["valid_nll"]["full"][n] < note["valid_nll"]["still"][n] for n in NAMES)
    # The expert is that try's branch, which is what one way of training would have given.
    alone = train_all(seed_only, text(), tmp_path)
    for n in NAMES:
        assert tiny_run.same(found.experts[n], alone.experts[n])
    assert sum(found.notes["dense"]["train_tokens"].values()) == sum(note["train_tokens"].values())


def test_a_try_may_have_a_batch_of_its_own():
    e = experiment(tries={"few": BranchConfig(batch=2), "usual": BranchConfig()})
    made = Recipe(e, text(), recipe.sized(TINY, tiny_corpora.TOKENIZER), lambda *_: {})
    assert [made.branches(None, t).batch for t in ("few", "usual", "")] == [2, 8, 8]


def test_experts_may_lean_on_each_other_and_valid_says_how_far(whole, folder):
    e, plain = whole
    leaning = dataclasses.replace(e, modular=dataclasses.replace(e.modular, averages=(0.5, 1.0)))
    found = train_all(leaning, text(), folder)
    choices = found.notes["branches"]["averages"]
    assert set(choices) == set(NAMES)
    for name, choice in choices.items():
        assert choice["valid_nll"] <= choice["own_nll"]
        assert tiny_run.same(found.experts[name], plain.experts[name]) == (not choice["share"])
    # A run that goes on has the same experts without measuring again.
    again = train_all(leaning, text(), folder)
    assert again.notes["branches"] == found.notes["branches"]
    assert all(tiny_run.same(again.experts[n], found.experts[n]) for n in NAMES)


def test_a_kind_with_compressed_positions_trains_like_any_other(tmp_path):
    e = experiment(seed_batch=8)
    kind = dataclasses.replace(TINY, kind="tlinformer", blocks=2, chunk=8)
    e = dataclasses.replace(e, lm=kind)
    made = Recipe(e, text(), recipe.sized(kind, tiny_corpora.TOKENIZER), lambda *_: {})
    found = training_stage.run_stage(
        made.seed(), e, tiny_corpora.TOKENIZER, tmp_path, lambda line: None
    )
    tokens = jnp.asarray(text().test["digits"].tokens[:, :W])

    @jax.jit
    def loss(params):
        h = lm.make_lm(found.lm).apply(params, tokens)
        return jnp.mean(objective.token_scores(h, lm.head(found.lm, params), tokens).nll)

    assert float(loss(found.params["seed"])) < np.log(found.lm.vocab_size) - 1.5
    with pytest.raises(UserError, match="chunk=5 must divide the window of 16 tokens"):
        recipe.check(dataclasses.replace(e, lm=dataclasses.replace(kind, chunk=5)))


def test_a_stage_of_a_version_with_fewer_settings_of_the_model_is_read(whole, folder):
    _, found = whole
    lm = found.arms["seed"].config
    same = {"model": training_stage.shape_of(lm)}
    place = folder / "lm" / "seed"
    record = training_stage.read_sealed(place / training_stage.NOTE)
    kept = (place / training_stage.NOTE).read_bytes()
    for field in ("style", "chunk", "stages", "sinks"):
        del record["record"]["model"][field]
    training_stage.write_sealed(place / training_stage.NOTE, record)
    try:
        again = training_stage.stored_stage(place, lm, same)
        assert tiny_run.same(again.params["seed"], found.seed)
        other = {"model": {**same["model"], "chunk": 8}}
        with pytest.raises(UserError, match="model: chunk"):
            training_stage.stored_stage(place, lm, other)
    finally:
        (place / training_stage.NOTE).write_bytes(kept)
