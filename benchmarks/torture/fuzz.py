"""`cr-jax` and the bank's readers against generated inputs: status 2 with one line, or an answer.

Nothing else: no traceback, no hang, no write outside the bank, no pickle.
"""

import collections
import dataclasses
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

try:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis.configuration import set_hypothesis_home_dir
except ModuleNotFoundError:
    sys.exit("hostile input is made by hypothesis: pip install '.[test]'")

from benchmarks.torture import bounds, closed, hostile, places, watch, written
from benchmarks.torture.hostile import Case
from benchmarks.torture.probes import Probe, some
from cr_jax import cli
from cr_jax.bank import Expert, ExpertBank, LanguageModels, parameters, store_lms
from cr_jax.config import LmConfig, ModelConfig
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.models import BOTTLENECKS
from cr_jax.scoring import bigram
from cr_jax.scoring.calibration import Calibration

MODEL = ModelConfig(
    vocab_size=258,
    window=16,
    latents=4,
    d_model=16,
    d_latent=16,
    heads=2,
    d_ff=32,
    encoder_blocks=1,
    decoder_blocks=1,
    bottleneck="fold",
    fold_channels=8,
    dtype="float32",
)
LM = LmConfig(vocab_size=258, d_model=8, heads=2, d_ff=12, blocks=1, dtype="float32")
SHARES = {
    **{"text": 0.15, "safetensors": 0.11, "json": 0.14, "name": 0.1, "size": 0.08},
    **{"path": 0.05, "encoding": 0.05, "line end": 0.04, "setting": 0.09, "stream": 0.02},
    # 1,271 are every archive cut at every byte, 165 every command with every stream closed.
    **{"archive": 0.13, "changed archive": 0.04},
}
SHOWN = 40  # failures kept with their input


def run(inputs: int, number: int = 0, progress: Callable[[str], None] = lambda line: None) -> dict:
    """-> figures: fuzz_inputs, fuzz_failures, by kind, and the first failures themselves."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        arena = _Arena(Path(folder).resolve())
        watch.install()
        for argv in hostile.READING:  # compiled before memory is limited
            arena.check(Case("text", argv), [])
        with watch.limited_memory(4):
            return arena.fuzz(inputs, number, progress)


class _Arena:
    """A bank, a second one, and canaries around them that no input may touch."""

    def __init__(self, folder: Path):
        set_hypothesis_home_dir(folder / "hypothesis")
        self.folder, self.pristine = folder, folder / "pristine"
        self.inside = folder / "inside"
        compiled = jax.config.jax_compilation_cache_dir
        self.writable = (self.inside, *([Path(compiled)] if compiled else []))
        self.bank, self.other = self.inside / "bank", self.inside / "other"
        self.empty = folder / "empty"
        self.inside.mkdir()
        self._use(MODEL, 2)
        self.input = folder / "input.txt"
        self.canary = folder / "canary"
        self.canary.mkdir()
        (self.canary / "bank.json").write_text("{}")
        self.failures: list[dict] = []
        self.failed = 0

    def _use(self, model: ModelConfig, experts: int) -> None:
        """Banks of this model from here on."""
        for path in (self.pristine, self.empty, self.bank, self.other):
            shutil.rmtree(path, ignore_errors=True)
        make_bank(self.pristine, experts, model)
        make_bank(self.empty, 0, model)
        shutil.copytree(self.pristine, self.bank)
        shutil.copytree(self.empty, self.other)

    def fuzz(self, inputs: int, number: int, progress) -> dict:
        drawn = {
            "text": lambda bank: hostile.texts(),
            "safetensors": hostile.parameters,
            "json": hostile.manifests,
            "name": hostile.names,
            "path": lambda bank: places.placed(bank, self.writable),
            "encoding": lambda bank: written.encoded(),
            "line end": lambda bank: written.line_ends(),
            "changed archive": lambda bank: written.changed_archives(),
            "setting": lambda bank: bounds.at_bounds(),
            **{f"size, {form}": hostile.sizes for form in BOTTLENECKS},
        }
        listed = {"archive": self._archives, "stream": self._streams}
        figures = {}
        for kind in (*listed, *drawn):
            word, _, form = kind.partition(", ")
            wanted = round(inputs * SHARES[word] / (len(BOTTLENECKS) if form else 1))
            if form:  # one expert, so that nothing of another one is in the way of its sizes
                self._use(dataclasses.replace(MODEL, bottleneck=form), 1)
            before, surroundings = self.failed, self._surroundings()
            if kind in listed:
                statuses = listed[kind](wanted, number)
            else:
                statuses = self._drawn(drawn[kind](self.pristine), wanted, number)
            if self._surroundings() != surroundings:
                self._fail({"kind": kind, "wrong": ["files outside the bank have changed"]})
            counts = collections.Counter(statuses)
            figures[kind] = {
                "inputs": len(statuses),
                "refused": counts[2],
                "answered": counts[0],
                "failures": self.failed - before,
            }
            progress(f"{kind}: {figures[kind]}")
        return {
            "fuzz_inputs": sum(x["inputs"] for x in figures.values()),
            "fuzz_failures": self.failed,
            "kinds": figures,
            "failures": self.failures,
        }

    def _drawn(self, strategy, wanted: int, number: int) -> list:
        """Exit statuses of `wanted` inputs that hypothesis draws."""
        done: list = []

        def one(case) -> None:
            if len(done) < wanted:
                self.check(case, done) if isinstance(case, Case) else self.probe(case, done)

        while len(done) < wanted:
            count = len(done)
            _generate(strategy, wanted - count, number + count, one)
            if len(done) == count:
                break  # nothing new to draw
        return done

    def _archives(self, wanted: int, number: int) -> list:
        done: list = []
        for probe in some(written.cut_archives(), wanted, number):
            self.probe(probe, done)
        return done

    def _streams(self, wanted: int, number: int) -> list:
        folder = self.inside / "streams"
        shutil.copytree(self.pristine, folder / "bank")
        shutil.copytree(self.empty, folder / "bare")
        (folder / "text").write_text("a few words")
        answers = closed.run(folder, some(closed.combinations(), wanted, number))
        if self._tree(folder / "bank") != self._tree(self.pristine):
            self._fail({"kind": "stream", "wrong": ["a command that was refused changed the bank"]})
        shutil.rmtree(folder)
        for _, wrong in answers:
            if wrong:
                self._fail({"kind": "stream", "wrong": wrong})
        return [status for status, _ in answers]

    def probe(self, probe: Probe, statuses: list) -> None:
        """One input of a library call; 2 or 0, where it was refused or answered, to `statuses`."""
        folder = self.inside / "probe"
        folder.mkdir()
        status, wrong = watch.probe(probe, folder, self.writable)
        shutil.rmtree(folder)
        statuses.append(status)
        if wrong:
            self._fail({"kind": probe.kind, "what": probe.what, "wrong": wrong})

    def check(self, case: Case, statuses: list) -> None:
        """One input; its exit status goes to `statuses`."""
        names = {"{bank}": str(self.bank), "{other}": str(self.other), "{input}": str(self.input)}
        argv = [_replace(word, names) for word in case.argv]
        self.input.write_bytes(case.text)
        try:
            hostile.put(case, self.bank)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                status, wrong = watch.call(
                    cli.main, argv, case.text, self.writable, case.argv[:2] == ("bank", "verify")
                )
            if status == 0 and case.must_fail and self._differs(case):
                wrong.append("a changed byte was not noticed")
            if (
                case.argv[:2] not in (("bank", "add"), ("bank", "remove"))
                and not case.files
                and self._tree(self.bank) != self._tree(self.pristine)
            ):
                wrong.append("a reading command changed the bank")
        finally:
            hostile.restore(case, self.pristine, self.bank)
            if case.argv[:2] == ("bank", "add"):
                shutil.rmtree(self.other)
                shutil.copytree(self.empty, self.other)
        statuses.append(status)
        if wrong:
            self._fail(
                {
                    "kind": case.kind,
                    "argv": [w[:80] for w in case.argv],
                    "wrong": wrong,
                    "sealed": case.sealed,
                    "text": repr(case.text[:80]),
                    "files": [[n, repr(d[:400])] for n, d in case.files],
                }
            )

    def _differs(self, case: Case) -> bool:
        """Whether a file that the command reads is another than the good one."""
        return any((self.pristine / name).read_bytes() != data for name, data in case.files)

    def _fail(self, what: dict) -> None:
        self.failed += 1
        if len(self.failures) < SHOWN:
            text = str(what["wrong"]).replace(str(self.folder), "FOLDER")
            self.failures.append({**what, "wrong": text})

    def _surroundings(self) -> dict:
        return (
            self._tree(self.canary)
            | self._tree(self.pristine)
            | self._tree(self.empty)
            | {p.name: b"" for p in self.folder.iterdir() if p.name != "hypothesis"}
        )

    def _tree(self, folder: Path) -> dict:
        return {
            str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
            for p in folder.rglob("*")
        }


def make_bank(folder: Path, experts: int, model: ModelConfig = MODEL) -> None:
    """A bank of experts with random weights, bigram models of random text and language models."""
    bank = ExpertBank.create(folder, model, ByteTokenizer())
    calibration = Calibration({8: np.linspace(1, 9, 40), 16: np.linspace(1, 9, 40)})
    for i in range(experts):
        random = np.random.default_rng(i)
        text = random.integers(0, model.vocab_size, (8, model.window))
        counted = bigram.count(text, np.ones(text.shape, bool), model.vocab_size)
        params = _drawn(model, random)
        bank = bank.add(Expert(f"e{i}", params, calibration, {"seed": i}, counted))
    if experts:
        random = np.random.default_rng(experts)
        own = {name: _drawn(LM, random) for name in bank.names}
        store_lms(folder, LanguageModels(LM, _drawn(LM, random), own))


def _drawn(config: ModelConfig | LmConfig, random: np.random.Generator) -> dict:
    """Random parameters."""
    tree: dict = {}
    for path, shape in parameters.shapes(config).items():
        *groups, leaf = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = random.normal(0, 0.3, shape).astype(np.float32)
    return tree


def _generate(strategy, count: int, number: int, check: Callable[[Case], object]) -> None:
    """Draws `count` cases; a failing one is noted by `check`, not raised, and not shrunk."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(strategy)
    def one(case):
        check(case)

    one()


def _replace(word: str, names: dict[str, str]) -> str:
    for short, long in names.items():
        word = word.replace(short, long)
    return word


if __name__ == "__main__":
    import argparse
    import json

    p = argparse.ArgumentParser(prog="python -m benchmarks.torture.fuzz", description=__doc__)
    p.add_argument("inputs", type=int, help="how many are generated")
    p.add_argument("--seed", type=int, default=0, help="other inputs (default 0)")
    a = p.parse_args()
    found = run(a.inputs, a.seed, progress=lambda line: print(line, file=sys.stderr))
    print(json.dumps(found, indent=1))
