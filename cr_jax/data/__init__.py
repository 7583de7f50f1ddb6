"""Documents -> tokens -> windows [B, L]: sources, tokenizers, cached corpora, Grain batches."""

from cr_jax.data.batches import (
    Mixture,
    Share,
    WindowBatches,
    Windowing,
    content,
    count_tokens,
    epoch_positions,
    sample,
    train_iterator,
)
from cr_jax.data.corpus import Corpus, load_corpus
from cr_jax.data.sources import Document, Reading, documents, read_text, register_source
from cr_jax.data.tokenizers import (
    ByteTokenizer,
    Gpt2Tokenizer,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
    train_sentencepiece,
)
from cr_jax.data.windows import Windows, document_windows, eval_windows, random_windows, windows_of

__all__ = [
    "ByteTokenizer",
    "Corpus",
    "Document",
    "Gpt2Tokenizer",
    "HuggingFaceTokenizer",
    "Mixture",
    "Reading",
    "SentencePieceTokenizer",
    "Share",
    "Tokenizer",
    "WindowBatches",
    "Windowing",
    "Windows",
    "content",
    "count_tokens",
    "document_windows",
    "documents",
    "epoch_positions",
    "eval_windows",
    "load_corpus",
    "load_tokenizer",
    "random_windows",
    "read_text",
    "register_source",
    "sample",
    "train_iterator",
    "train_sentencepiece",
    "windows_of",
]
