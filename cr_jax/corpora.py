"""An experiment's text: its tokenizer and, per domain, train corpora and evaluation windows."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from cr_jax.calibration import COUNTS
from cr_jax.config import Experiment, ModelConfig
from cr_jax.data import (
    ByteTokenizer,
    Corpus,
    Gpt2Tokenizer,
    Mixture,
    Reading,
    Tokenizer,
    Windows,
    document_windows,
    documents,
    eval_windows,
    load_corpus,
    load_tokenizer,
    random_windows,
    train_sentencepiece,
)
from cr_jax.data.overlap import lines as overlap_lines
from cr_jax.data.overlap import overlap
from cr_jax.data.sources import READING
from cr_jax.data.text_form import text_form
from cr_jax.errors import UserError
from cr_jax.paths import expanded

RANDOM = "random_tokens"


@dataclasses.dataclass(frozen=True)
class Corpora:
    """Everything a run reads.  Keys are domain names, trained ones in `train` and `valid`."""

    tokenizer: Tokenizer
    train: Mapping[str, Corpus | Mixture]
    valid: Mapping[str, Windows]
    test: Mapping[str, Windows]  # also unseen domains and, last, RANDOM
    valid_documents: Mapping[str, Windows] = dataclasses.field(default_factory=dict)
    # domain -> split -> how much of it also stands in training text (`cr_jax.data.overlap`)
    overlap: Mapping[str, Mapping[str, Mapping[str, float]]] = dataclasses.field(
        default_factory=dict)


def prepare(e: Experiment, workdir: Path, say=lambda line: None, compare: bool = True) -> Corpora:
    """Trains or loads the tokenizer, tokenises and caches every domain.  `UserError` as the data
    room raises it: a missing file, an empty domain, a changed tokenizer.

    compare: count what of the held-out text stands in training text, and say so.
    """
    data = e.data
    root = expanded(data.root)
    place = lambda specs: [s.replace("{root}", root) for s in specs]
    reading = Reading(data.max_document_bytes, data.group_key, data.text_form)
    tokenizer = _tokenizer(e, workdir, place, reading, say)
    cache = Path(expanded(data.cache)) if data.cache else workdir / "cache"

    def corpus(name, split, specs, most=None):
        found = load_corpus(place(specs), tokenizer, cache, most, reading)
        say(f"{name} {split}: {len(found.tokens):,} tokens in {len(found.names):,} documents")
        if found.left_out:
            say(f"{name} {split}: {found.left_out}")
        return found

    def windows(found, limit):
        return eval_windows(found, e.model.window, limit=limit, mode=data.mode,
                            pad_id=tokenizer.pad_id, seed=e.seed)

    def training(name, specs):
        most = data.max_train_tokens or None
        weights, plain = zip(*(weighted(s) for s in specs), strict=True)
        if all(w is None for w in weights):
            return corpus(name, "train", plain, most)
        shares = [1.0 if w is None else w for w in weights]
        part = lambda w: most and max(1, int(most * w / sum(shares)))
        return Mixture([corpus(name, "train", [s], part(w))
                        for s, w in zip(plain, shares, strict=True)], shares)

    train = {n: training(n, d.train) for n, d in data.domains.items()}
    held_out = {n: corpus(n, "valid", d.valid) for n, d in data.domains.items()}
    valid = {n: windows(found, e.eval.calibration_windows) for n, found in held_out.items()}
    whole = {n: document_windows(
                 found, e.model.window, tokenizer.pad_id, limit=e.eval.calibration_documents,
                 most_tokens=COUNTS[-1] * e.model.window, least_tokens=e.model.window + 1)
             for n, found in held_out.items() if e.eval.calibration_documents}
    tests = {n: corpus(n, "test", d.test) for n, d in [*data.domains.items(), *data.unseen.items()]}
    test = {n: windows(found, e.eval.windows or None) for n, found in tests.items()}
    count = e.eval.windows or max(len(w) for w in test.values())
    test[RANDOM] = random_windows(count, e.model.window, tokenizer.vocab_size, e.seed)
    found = _overlap(train, held_out, tests, say) if compare else {}
    return Corpora(tokenizer, train, valid, test, whole, found)


def _overlap(train, valid, test, say):
    corpora = {n: x.corpora if isinstance(x, Mixture) else [x] for n, x in train.items()}
    found = overlap(corpora, {n: {**({"valid": valid[n]} if n in valid else {}), "test": x}
                              for n, x in test.items()})
    for line in overlap_lines(found, train.keys()):
        say(line)
    return found


def weighted(spec: str) -> tuple[float | None, str]:
    """A training source with its share of rows: "0.3*jsonl:a.jsonl" -> (0.3, "jsonl:a.jsonl").

    Without a share: (None, spec).  When no source of a domain has one, rows follow its tokens;
    otherwise sources without a share count as 1.

    >>> weighted("3*stdlib@train"), weighted("files:a*b.txt")
    ((3.0, 'stdlib@train'), (None, 'files:a*b.txt'))
    """
    share, star, rest = spec.partition("*")
    with contextlib.suppress(ValueError):
        if star and float(share) > 0:
            return float(share), rest
    return None, spec


def sized(model: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model with its vocabulary: the tokenizer's, up to a multiple of 128 for matrix units.

    `UserError` when it is given and does not hold the tokenizer's ids.
    """
    if model.vocab_size:
        if model.vocab_size < tokenizer.vocab_size:
            raise UserError(f"config.model.vocab_size={model.vocab_size} does not hold the "
                            f"{tokenizer.vocab_size:,} ids of the tokenizer; leave it at 0")
        return model
    return dataclasses.replace(model, vocab_size=-(-tokenizer.vocab_size // 128) * 128)


def _tokenizer(e: Experiment, workdir: Path, place, reading, say) -> Tokenizer:
    t, own = e.tokenizer, workdir / "tokenizer"
    folder = expanded(t.folder)
    if t.kind == "bytes":
        return ByteTokenizer()
    if t.kind == "gpt2":
        return Gpt2Tokenizer(folder or None)
    if folder:
        return load_tokenizer(folder)
    if (own / "tokenizer.json").exists():
        return load_tokenizer(own)
    say(f"training a SentencePiece tokenizer of {t.vocab_size:,} pieces")
    # The same share of text from every domain, so that no language pays for another's size.
    return train_sentencepiece(
        (text for d in e.data.domains.values()
         for text in _some([weighted(s)[1] for s in place(d.train)], t.train_bytes, reading)),
        t.vocab_size, own, seed=e.seed, max_bytes=t.train_bytes * len(e.data.domains))


def _some(specs, most: int, reading: Reading = READING) -> Iterator[str]:
    """Documents of a domain until `most` characters, as many from each source."""
    for spec in specs:
        left = most // len(specs)
        for document in documents(spec, reading):
            if left <= 0:
                break
            text = text_form(document.text, reading.text_form)
            yield text[:left]
            left -= len(text)
