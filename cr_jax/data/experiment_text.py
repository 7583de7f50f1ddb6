"""An experiment's text: its tokenizer and, per domain, train corpora and evaluation windows."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from cr_jax.config import DOCUMENT_WINDOWS, Experiment, LmConfig, ModelConfig
from cr_jax.config.names import RANDOM as RANDOM
from cr_jax.data import (
    ByteTokenizer,
    Corpus,
    Gpt2Tokenizer,
    HuggingFaceTokenizer,
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
from cr_jax.data.corpus_specs import (
    CorpusSpec,
    all_specs,
    held_out_spec,
    placed,
    training_specs,
    weighted,
)
from cr_jax.data.encoding import Encoder
from cr_jax.data.overlap import lines as overlap_lines
from cr_jax.data.overlap import overlap
from cr_jax.data.sources import READING, size
from cr_jax.data.sources import check as check_source
from cr_jax.data.text_form import text_form
from cr_jax.data.token_folder import TokenFolder
from cr_jax.data.tokenizing_bar import TokenizingBar
from cr_jax.errors import UserError
from cr_jax.host.files import expanded

Sized = TypeVar("Sized", ModelConfig, LmConfig)


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
        default_factory=dict
    )


def prepare(e: Experiment, workdir: Path, say=lambda line: None, compare: bool = True) -> Corpora:
    """Trains or loads the tokenizer, tokenises and caches every domain; with `config.data.tokens`
    reads all of that from there.  `UserError` as the package `data` raises it: a missing file, an
    empty domain, a changed tokenizer.

    compare: count what of the held-out text stands in training text, and say so.
    """
    data = e.data
    cache = expanded(data.cache) if data.cache else workdir / "cache"
    with contextlib.ExitStack() as stack:
        if data.tokens:
            folder = TokenFolder(data.tokens)
            tokenizer = folder.tokenizer(e)
            sized(e.model, tokenizer)
            folder.need(all_specs(e))  # a corpus that is missing is told before another is read

            def corpus(spec):
                found = folder.corpus(spec, cache)
                _tell(spec, found, say)
                return found
        else:
            check_sources(e)
            tokenizer = make_tokenizer(e, workdir, say)
            sized(e.model, tokenizer)
            corpus = stack.enter_context(tokenised(e, tokenizer, cache, say))

        def windows(found, limit):
            return eval_windows(
                found,
                e.model.window,
                limit=limit,
                mode=data.mode,
                pad_id=tokenizer.pad_id,
                seed=e.seed,
            )

        def training(name):
            specs, shares = training_specs(e, name)
            found = [corpus(spec) for spec in specs]
            return found[0] if shares is None else Mixture(found, shares)

        train = {n: training(n) for n in data.domains}
        held_out = {n: corpus(held_out_spec(e, n, "valid")) for n in data.domains}
        valid = {n: windows(found, e.eval.calibration_windows) for n, found in held_out.items()}
        whole = {
            n: document_windows(
                found,
                e.model.window,
                tokenizer.pad_id,
                limit=e.eval.calibration_documents,
                most_tokens=DOCUMENT_WINDOWS[-1] * e.model.window,
                least_tokens=e.model.window + 1,
            )
            for n, found in held_out.items()
            if e.eval.calibration_documents
        }
        tests = {n: corpus(held_out_spec(e, n, "test")) for n in [*data.domains, *data.unseen]}
        test = {n: windows(found, e.eval.windows or None) for n, found in tests.items()}
    count = e.eval.windows or max(len(w) for w in test.values())
    test[RANDOM] = random_windows(count, e.model.window, tokenizer.vocab_size, e.seed)
    found = _overlap(train, held_out, tests, say) if compare else {}
    return Corpora(tokenizer, train, valid, test, whole, found)


def check_sources(e: Experiment) -> None:
    """`UserError`, which names the setting, for a source that is not understood or not there; reads
    no text."""
    seen: set[str] = set()
    for corpus in all_specs(e):
        for written, spec in zip(corpus.specs, corpus.placed(e.data.root), strict=True):
            if spec in seen:
                continue
            seen.add(spec)
            try:
                check_source(spec)
            except UserError as error:
                group = "domains" if corpus.domain in e.data.domains else "unseen"
                root = (
                    f" ({{root}} is config.data.root={e.data.root})" if "{root}" in written else ""
                )
                raise UserError(
                    f"config.data.{group}.{corpus.domain}.{corpus.split}: {error}{root}"
                ) from error


def _overlap(train, valid, test, say):
    corpora = {n: x.corpora if isinstance(x, Mixture) else [x] for n, x in train.items()}
    counts = overlap(
        corpora,
        {n: {**({"valid": valid[n]} if n in valid else {}), "test": x} for n, x in test.items()},
    )
    for line in overlap_lines(counts, train.keys()):
        say(line)
    return counts


@contextlib.contextmanager
def tokenised(
    e: Experiment, tokenizer: Tokenizer, cache: Path, say: Callable[[str], None], jobs: int = 0
) -> Iterator[Callable[[CorpusSpec], Corpus]]:
    """`with tokenised(...) as corpus:` `corpus(spec)` is one of the experiment's, from the cache
    or, by `jobs` processes (0: one per core) and with a bar on a terminal, from its text.
    """
    specs = all_specs(e)
    sizes = [sum(map(size, spec.placed(e.data.root))) for spec in specs]
    with (
        Encoder(tokenizer, jobs) as encoder,
        TokenizingBar(sizes, [spec.max_tokens for spec in specs]) as bar,
    ):

        def corpus(spec: CorpusSpec) -> Corpus:
            with bar.corpus(specs.index(spec), str(spec)) as on_tokens:
                reading = Reading(e.data.max_document_bytes, spec.group_key, spec.text_form)
                found = load_corpus(
                    spec.placed(e.data.root), encoder, cache, spec.max_tokens, reading, on_tokens
                )
            with bar.writing():
                _tell(spec, found, say)
            return found

        yield corpus
        if bar.tokens:
            say(
                f"tokenised {bar.tokens:,} tokens in {bar.seconds:.1f} s: "
                f"{bar.tokens / bar.seconds:,.0f} tokens/s with {encoder.jobs} processes"
            )


def _tell(spec: CorpusSpec, corpus: Corpus, say: Callable[[str], None]) -> None:
    say(f"{spec}: {len(corpus.tokens):,} tokens in {len(corpus.names):,} documents")
    if corpus.left_out:
        say(f"{spec}: {corpus.left_out}")


def sized(model: Sized, tokenizer: Tokenizer) -> Sized:
    """The model with its vocabulary: the tokenizer's, up to a multiple of 128 for matrix units.

    `UserError` when it is given and does not hold the tokenizer's ids.
    """
    _check_ids(model, tokenizer.vocab_size)
    if model.vocab_size:
        return model
    return dataclasses.replace(model, vocab_size=-(-tokenizer.vocab_size // 128) * 128)


def _check_ids(model: ModelConfig | LmConfig, ids: int) -> None:
    if 0 < model.vocab_size < ids:
        group = "lm" if isinstance(model, LmConfig) else "model"
        raise UserError(
            f"config.{group}.vocab_size={model.vocab_size} does not hold the {ids:,} ids "
            "of the tokenizer; leave it at 0"
        )


def make_tokenizer(e: Experiment, workdir: Path, say=lambda line: None) -> Tokenizer:
    """The experiment's tokenizer; a SentencePiece model is trained in WORKDIR/tokenizer.

    `UserError` for a bad source, a missing or changed tokenizer, and a folder that is full.
    """
    t, own = e.tokenizer, workdir / "tokenizer"
    reading = Reading(e.data.max_document_bytes, e.data.group_key, e.data.text_form)
    if t.kind == "bytes":
        return ByteTokenizer()
    if t.kind == "gpt2":
        return Gpt2Tokenizer(t.folder or None)
    if t.kind == "huggingface":
        return HuggingFaceTokenizer.load(t.folder)
    if t.folder:
        return load_tokenizer(t.folder)
    if (own / "tokenizer.json").exists():
        return load_tokenizer(own)
    _check_ids(e.model, t.vocab_size)  # before text is read
    say(f"training a SentencePiece tokenizer of {t.vocab_size:,} pieces")
    # The same share of text from every domain, so that no language pays for another's size.
    return train_sentencepiece(
        (
            text
            for d in e.data.domains.values()
            for text in _some(
                placed([weighted(s)[1] for s in d.train], e.data.root), t.train_bytes, reading
            )
        ),
        t.vocab_size,
        own,
        seed=e.seed,
        max_bytes=t.train_bytes * len(e.data.domains),
    )


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
