"""A training run of seconds: bytes of generated text, two experts, a model of a thousand weights.

As a program, `python tests/tiny_run.py FOLDER STEPS PAUSE [EVENT NAME]` trains on
FOLDER/*.txt in FOLDER/run and waits PAUSE seconds after every step, so that it can be killed on the
way.  The thread that wants to rename to NAME (os.rename) or delete it (os.remove) in the folder of
the checkpoints makes FOLDER/held and waits for ever.
"""

import dataclasses
import os
import pathlib
import sys
import threading
import time

import jax
import numpy as np

from cr_jax import config as settings
from cr_jax import parallel
from cr_jax.config import ModelConfig
from cr_jax.data import ByteTokenizer, WindowBatches, load_corpus, train_iterator
from cr_jax.training import loop

# No blocks: what is tested here is the loop, and this compiles in a second.
MODEL = ModelConfig(vocab_size=258, window=12, latents=3, d_model=16, d_latent=16, heads=2,
                    d_ff=24, encoder_blocks=0, decoder_blocks=0, bottleneck="fold", fold_channels=8,
                    tie_embeddings=True, dtype="float32")
BATCH = 8
NAMES = ("digits", "letters")
LETTERS = {"digits": "0123456789 +-=", "letters": "abcdefghij klmno.", "marks": "<>[]{}()!?#"}


def text(kind: str, seed: int = 0, words: int = 400) -> str:
    """Random words of a few that use the kind's letters only."""
    random = np.random.default_rng([seed, len(kind)])
    pool = ["".join(random.choice(list(LETTERS[kind]), random.integers(2, 7))) for _ in range(40)]
    return "\n".join(random.choice(pool, words))


def write(folder, kinds=NAMES, splits=("train", "valid", "test")) -> dict:
    """FOLDER/KIND-SPLIT.txt; -> the settings' domains."""
    for kind in kinds:
        for split in splits:
            place = pathlib.Path(folder) / f"{kind}-{split}.txt"
            place.write_text(text(kind, splits.index(split)), encoding="utf-8")
    return {kind: {split: [f"files:{folder}/{kind}-{split}.txt"] for split in splits}
            for kind in kinds}


def config(folder):
    """A whole run: two experts for 60 steps; `marks` is the domain that none was trained on."""
    made = settings.default()
    made.data.domains = {
        name: settings.domain(
            *(f"files:{folder}/{name}-{split}.txt" for split in ("train", "valid", "test")))
        for name in NAMES}
    made.data.unseen = {"marks": settings.domain(test=f"files:{folder}/marks-test.txt")}
    made.model.update({k: v for k, v in settings.to_dict(MODEL).items() if k != "vocab_size"})
    made.tokenizer.kind = "bytes"
    made.optimizer.update(name="adamw", learning_rate=0.02)
    made.train.update(batch=BATCH, steps=60, log_every=20)
    made.eval.update(batch=16, windows=24, calibration_windows=40)
    return made


def experiment(folder, steps: int = 6, names=NAMES, **train) -> settings.Experiment:
    return settings.build({
        "model": settings.to_dict(MODEL), "tokenizer": {"kind": "bytes"},
        "data": {"domains": {n: {s: [f"files:{folder}/{n}-{s}.txt"]
                                 for s in ("train", "valid", "test")} for n in names}},
        "optimizer": {"name": "adamw"},
        "train": {"batch": BATCH, "log_every": 1, "checkpoint_every": 1e9,
                  **({} if train.keys() & {"tokens", "seconds"} else {"steps": steps}), **train}})


def train(e: settings.Experiment, folder, model=MODEL, on_log=None, mode="jit", devices=None,
          fsdp=1, **more):
    """`loop.train` of the experiment's domains in FOLDER/run, by default on one device.

    fsdp: how many devices share a copy of the state, of which every leaf that can be is split.
    """
    tokenizer, names = ByteTokenizer(), tuple(e.data.domains)
    folder = pathlib.Path(folder)
    corpora = {n: load_corpus(e.data.domains[n].train, tokenizer, folder / "cache")
               for n in names}
    batches = lambda step: train_iterator(WindowBatches(
        corpora, batch=e.train.batch, window=model.window, seed=e.seed, mode=e.data.mode,
        pad_id=tokenizer.pad_id), step)
    plan = parallel.make_plan(mode, len(names), e.train.batch, e.mesh_expert,
                              devices or jax.devices()[:1], fsdp, small=0)
    return loop.train(e, model, corpora, plan, batches, folder / "run", on_log, **more)


def flat(params) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(x)
            for path, x in jax.tree_util.tree_leaves_with_path(params)}


def same(a, b) -> bool:
    a, b = flat(a), flat(b)
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


# What a kill must not change: Muon, averages, random rates and hidden tokens have state or keys.
FULL_MODEL = dataclasses.replace(MODEL, encoder_blocks=1)


def full(folder, steps: int) -> settings.Experiment:
    e = experiment(folder, steps, ema=0.9, nested=0.5, hidden=0.5, checkpoint_every=0.0)
    return dataclasses.replace(e, optimizer=dataclasses.replace(e.optimizer, name="muon"))


def hold(event: str, path: pathlib.Path) -> None:
    """Stops the thread that is about to rename something to `path` or to delete it."""
    place = {"os.rename": 1, "os.remove": 0}[event]

    def hear(name, arguments):
        if name == event and os.fsdecode(arguments[place]) == str(path):
            path.parents[1].with_name("held").touch()
            threading.Event().wait()

    sys.addaudithook(hear)


if __name__ == "__main__":
    place, count, pause, *held = sys.argv[1:]
    if held:
        hold(held[0], pathlib.Path(place).resolve() / "run" / "checkpoints" / held[1])
    train(full(place, int(count)), place, FULL_MODEL,
          on_log=lambda *_: time.sleep(float(pause)))
