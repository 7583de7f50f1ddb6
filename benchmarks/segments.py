"""How well a stored bank cuts texts where their domain changes -> results/segments.json.

    python -m benchmarks.segments --config configs/pretrained.py --out results/segments.json \
        --config.data.root=DATA [--bank BANK] [--mixed DATA/mixed] [--parsed FOLDER]
        [--code python javascript] [--ngrams]

Spliced texts of the config's domains (`cr_jax.studies.segments`); --mixed: also documents of
FOLDER/valid.jsonl.zst and FOLDER/test.jsonl.zst with labelled spans,
{"text", "segments": [[start, end, "code" | "prose"], ...]} in characters.  There the experts that
--code names are told from all others, as two groups (`grouped`) or each for itself; which of these,
switch cost and minimum are those that are best on valid.  --parsed: the same of each kind of real
files that `benchmarks.parsed_files` wrote to FOLDER.  --ngrams: also linear n-grams with the same
decoder (`segment_ngrams`; needs scikit-learn).  --no-splices: spliced texts are left out, and what
--out says of them stays.  "curves" are what `segment_curves` draws.
"""

import argparse
import itertools
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import zstandard
from jaxtyping import Bool, Float, Int

from benchmarks import segment_ngrams
from benchmarks.results import commit, versions, write, written
from cr_jax import config as settings
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.config.command_line import load
from cr_jax.data import eval_windows, load_corpus
from cr_jax.data.corpus_specs import held_out_spec, training_specs
from cr_jax.data.text_form import formed
from cr_jax.data.windows import windows_of
from cr_jax.errors import UserError, complain
from cr_jax.routing.options import SegmentOptions
from cr_jax.routing.segment import token_costs
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import segment_curves, segments
from cr_jax.studies.segments import (
    MINIMA,
    PEER_SWITCHES,
    SWITCHES,
    WAYS,
    Prices,
    Splice,
    decoded,
    mean_metrics,
)

MOST = 60  # mixed documents of each split


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--config", required=True)
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--mixed")
    p.add_argument("--parsed")
    p.add_argument("--code", nargs="*", default=[], metavar="EXPERT")
    p.add_argument("--ngrams", action="store_true")
    p.add_argument("--no-splices", action="store_true")
    p.add_argument("--out", required=True)
    a, overrides = p.parse_known_args(arguments)
    try:
        record = report(a, overrides)
    except UserError as error:
        complain("error", error)
        return 2
    write(a.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record.get("splices"), indent=1))
    return 0


def report(a, overrides: Sequence[str]) -> dict:
    """The study of the bank's own domains, and of mixed documents."""
    e = settings.build(load(a.config, overrides).to_dict())
    bank = ExpertBank.load(a.bank, lms=False)
    if unknown := set(a.code) - set(bank.names):
        raise UserError(f"--code names no expert of the bank: {', '.join(sorted(unknown))}")
    if (a.mixed or a.parsed) and len(set(a.code)) in (0, len(bank.names)):
        raise UserError("--mixed and --parsed need --code: some experts of code, some of prose")
    kinds = parsed_kinds(Path(a.parsed)) if a.parsed else []
    began = time.perf_counter()
    peers = segment_ngrams.peers(bank, windows(e, bank, "train")) if a.ngrams else {}
    if a.no_splices:
        record = written(a.out)
    else:
        valid, test = windows(e, bank, "valid"), windows(e, bank, "test")
        record = segments.run(bank, valid, test, e.seed, peers=peers)["segments"]
        record["curves"] = segment_curves.curves(bank, test, record["chosen"], e.seed)
    if a.mixed:
        record["mixed"] = mixed(bank, Path(a.mixed), a.code, peers)
    if kinds:
        record["parsed"] = {folder.name: mixed(bank, folder, a.code, peers) for folder in kinds}
    command = shlex.join(["python", "-m", "benchmarks.segments", *sys.argv[1:]])
    origin = {
        "seconds": time.perf_counter() - began,
        "command": command.replace(str(e.data.root), "DATA"),
        "commit": commit(),
        "versions": versions(),
    }
    return record | ({"mixed_origin": origin} if a.no_splices else origin)


def windows(e, bank: ExpertBank, split: str) -> dict:
    """Consecutive windows of each of the bank's domains."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in bank.names:
            of = training_specs(e, name)[0] if split == "train" else [held_out_spec(e, name, split)]
            specs = [spec for corpus in of for spec in corpus.placed(e.data.root)]
            corpus = load_corpus(specs, bank.tokenizer, cache, 400_000)
            found[name] = eval_windows(
                corpus, bank.model.window, mode="packed", pad_id=bank.tokenizer.pad_id
            )
    return found


def parsed_kinds(root: Path) -> list[Path]:
    """Folders of labelled documents, one of each kind."""
    found = sorted(file.parent for file in root.glob("*/test.jsonl.zst"))
    if not found:
        raise UserError(f"--parsed: no KIND/test.jsonl.zst in {root}; write it by parsed_files")
    return found


def mixed(
    bank: ExpertBank, folder: Path, code: Sequence[str], peers: Mapping[str, Prices] | None = None
) -> dict:
    """Metrics of code against prose by each way to price tokens; valid chooses the setting."""
    is_code = np.isin(bank.names, code)
    texts = {s: labelled(bank, folder / f"{s}.jsonl.zst") for s in ("valid", "test")}
    found = {}
    ways = {name: lambda text, way=way: costs_of(bank, text, way) for name, way in WAYS.items()}
    for name, price in {**ways, **(peers or {})}.items():
        cost = {s: [price(text) for text in of] for s, of in texts.items()}
        switches = PEER_SWITCHES if name in (peers or {}) else SWITCHES
        cut = lambda s, setting, cost=cost: mean_metrics(
            [of_group(c, is_code, *setting) for c in cost[s]], texts[s]
        )
        best = max(
            itertools.product((True, False), switches, MINIMA),
            key=lambda setting, cut=cut: cut("valid", setting)["token_accuracy"],
        )
        setting = dict(zip(("grouped", "switch", "minimum"), best, strict=True))
        found[name] = {**cut("test", best), **setting}
    share = float(np.mean([text.owner.mean() for text in texts["test"]]))
    return {
        "documents": len(texts["test"]),
        "code_share": share,  # of tokens: one answer for all of them is right so often, or 1 - that
        "ways": found,
        **found["experts"],
    }


def of_group(
    cost: Float[np.ndarray, "E T"],
    second: Bool[np.ndarray, " E"],
    as_groups: bool,
    switch: float,
    minimum: int,
) -> Int[np.ndarray, " T"]:
    """1 for each token that goes to an expert of `second`, 0 for the others; as_groups: both groups
    are decoded, else all experts, each for itself."""
    if as_groups:
        return decoded(grouped(cost, second), switch, minimum)
    return second[decoded(cost, switch, minimum)].astype(int)


def grouped(
    cost: Float[np.ndarray, "E T"], second: Bool[np.ndarray, " E"]
) -> Float[np.ndarray, "2 T"]:
    """What each token costs two groups of experts, those of `second` last: -log of the mean
    probability, so that a text which wanders between experts of one group pays for no switch."""

    def of(group):
        least = group.min(0)
        return least - np.log(np.mean(np.exp(least - group), 0))

    return np.stack([of(cost[~second]), of(cost[second])])


def labelled(bank: ExpertBank, file: Path) -> list[Splice]:
    """Documents as tokens, each 1 (code) or 0 (prose); those whose form changes are left out.
    `UserError` where the file cannot be read or has none."""
    found: list[Splice] = []
    try:
        with file.open("rb") as stream:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(stream)
            lines = reader.read().decode("utf-8").split("\n")
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    for line in filter(None, lines):
        raw = json.loads(line)
        text = raw["text"]
        if "".join(formed([text], bank.text_form)) != text:
            continue  # the labels count characters of the text as it was
        owner = np.zeros(len(text), int)
        for start, end, kind in raw["segments"]:
            owner[start:end] = kind == "code"
        ids = np.asarray(bank.tokenizer.encode(text), np.int32)
        bytes_of = (len(bank.tokenizer.to_bytes(ids[i : i + 1])) for i in range(len(ids)))
        place = np.cumsum([0, *bytes_of])[:-1]
        of_byte = np.repeat(owner, [len(c.encode()) for c in text])
        found.append(Splice(ids, of_byte[np.minimum(place, len(of_byte) - 1)]))
        if len(found) == MOST:
            break
    if not found:
        raise UserError(f"{file} holds no labelled document in the form that the bank reads")
    return found


def costs_of(bank: ExpertBank, text: Splice, options: SegmentOptions) -> Float[np.ndarray, "E T"]:
    """What each token of a text costs each expert."""
    cut = windows_of(text.ids.astype(np.int32), bank.model.window, bank.tokenizer.pad_id)
    return token_costs(bank, cut, options, BatchSizes.for_device())


if __name__ == "__main__":
    sys.exit(main())
