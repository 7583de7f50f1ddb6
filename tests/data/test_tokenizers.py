"""Tokenizers lose nothing, are reproducible, and notice a changed file."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tiny_gpt2

from cr_jax.data import tokenizers
from cr_jax.data.sources import documents
from cr_jax.data.tokenizers import ByteTokenizer, Gpt2Tokenizer, Tokenizer, load_tokenizer
from cr_jax.errors import UserError

HARD = [
    "",
    " ",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "a\0b\0\0",
    "\t \t",
    " " * 1000,
    "\n" * 300,
    "x" * 5000,
    "\u2581",
    "\u2581\u2581 a\u2581",
    "a \u2581b",
    "e\u0301",
    "\u0301\u0301",
    "\U0001f468\u200d\U0001f469",
    "<unk>",
    "<0x0A>",
    "</s>",
    "<pad>",
    "<|endoftext|>",
    "\ufeffx",
    "\uffff\ufffd",
    "\u2028\u0085",
    "if x:\n    return\t1  # ä\r\n",
    "線形\u3000代数",
    "\U0010ffff",
]


def random_texts(count: int = 300) -> list[str]:
    """Strings that mix what breaks tokenizers with plain words and any code point."""
    random = np.random.default_rng(0)
    parts = [*HARD[1:], "the", " of", "def ", "self.", "über", "(", "…", "12345"]
    texts = []
    for _ in range(count):
        text = ""
        for _ in range(random.integers(1, 12)):
            if random.random() < 0.3:
                text += "".join(
                    c
                    for c in map(chr, random.integers(0, 0x110000, 3))
                    if not 0xD800 <= ord(c) < 0xE000
                )
            else:
                text += parts[random.integers(len(parts))][:40]
        texts.append(text)
    return texts


@pytest.fixture(scope="module")
def texts():
    return [
        d.text[:60_000]
        for name in ("stdlib@valid", "samples/novels_de@valid")
        for d in list(documents(name))[:8]
    ]


@pytest.fixture(scope="module")
def trained(texts, tmp_path_factory):
    return tokenizers.train_sentencepiece(texts, 800, tmp_path_factory.mktemp("spm"))


@pytest.fixture(scope="module")
def gpt2(texts, tmp_path_factory):
    """GPT-2's tokenizer with a vocabulary of its form and 120 merges of its own."""
    folder = tiny_gpt2.write(tmp_path_factory.mktemp("gpt2"), "".join(texts)[:30_000], 120)
    return Gpt2Tokenizer(folder)


@pytest.fixture(params=["sentencepiece", "bytes", "gpt2"])
def tokenizer(request, trained, gpt2):
    if request.param == "gpt2":
        return gpt2
    return trained if request.param == "sentencepiece" else ByteTokenizer()


def test_lossless(tokenizer, texts):
    assert isinstance(tokenizer, Tokenizer)
    for text in [*HARD, *random_texts(), *texts]:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.uint32 and ids.ndim == 1
        assert tokenizer.decode(ids) == text
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())


def test_special_ids_are_in_range_stand_for_no_bytes_and_are_never_encoded(tokenizer):
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes.dtype == np.int32
    used = np.unique(np.concatenate([tokenizer.encode(text) for text in HARD]))
    assert used.max() < tokenizer.vocab_size
    for i in (tokenizer.end_id, tokenizer.pad_id):
        assert tokenizer.token_bytes[i] == 0 and i not in used
    assert tokenizer.decode(np.array([tokenizer.end_id, tokenizer.pad_id])) == ""


def test_pieces_are_the_text_of_each_id(tokenizer):
    text = "def f(x):\n    return 'ä€'"
    ids = tokenizer.encode(text)
    pieces = tokenizer.pieces(np.append(ids, tokenizer.end_id))
    assert len(pieces) == len(ids) + 1 and pieces[-1] == "<end>"
    data = b"".join(
        bytes.fromhex(piece[3:5]) * (len(piece) == 6) or piece.encode()
        if piece.startswith("<0x")
        else piece.encode()
        for piece in pieces[:-1]
    )
    assert data.decode(errors="replace")[:20] == text[:20]


def test_any_ids_decode(tokenizer):
    ids = np.random.default_rng(1).integers(0, tokenizer.vocab_size, 2000)
    assert isinstance(tokenizer.decode(ids), str)


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a" / "b")
    again = load_tokenizer(tmp_path / "a" / "b")
    assert again.kind == tokenizer.kind and again.fingerprint == tokenizer.fingerprint
    text = "".join(HARD)
    np.testing.assert_array_equal(again.encode(text), tokenizer.encode(text))


def test_training_is_deterministic_and_follows_the_text(texts, trained, tmp_path):
    def fingerprint(*args, **kwargs):
        return tokenizers.train_sentencepiece(*args, folder=tmp_path, **kwargs).fingerprint

    assert fingerprint(iter(texts), 800) == trained.fingerprint
    assert fingerprint(texts[::2], 800) != trained.fingerprint
    small = [fingerprint(texts, 600, max_bytes=100_000, seed=seed) for seed in (0, 0, 1)]
    assert small[0] == small[1] != small[2]


def test_sentencepiece_chunks_do_not_change_the_ids(trained, texts):
    from cr_jax.data.tokenizers import sentencepiece as module

    text = "\n".join(texts)
    assert len(module._line_chunks(text)) > 10
    np.testing.assert_array_equal(trained.encode(text), trained._processor.encode(text))


def test_a_script_with_more_characters_than_ids_still_trains(tmp_path):
    poems = [d.text for d in documents("samples/poems_zh")]
    tokenizer = tokenizers.train_sentencepiece(poems, 500, tmp_path)
    assert tokenizer.vocab_size == 500 and tokenizer.decode(tokenizer.encode(poems[0])) == poems[0]


@pytest.mark.parametrize(
    ("texts_", "size", "says"),
    [([], 500, "no text"), (["hello " * 99], 5000, "lower"), (["hello " * 99], 64, "larger|small")],
)
def test_bad_training_input_is_one_line(tmp_path, texts_, size, says):
    with pytest.raises(UserError, match=says) as error:
        tokenizers.train_sentencepiece(texts_, size, tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_changed_or_missing_tokenizer_is_refused(trained, tmp_path):
    def damaged(change) -> str:
        folder = tmp_path / "t"
        shutil.rmtree(folder, ignore_errors=True)
        trained.save(folder)
        change(folder)
        with pytest.raises(UserError) as error:
            load_tokenizer(folder)
        assert "\n" not in str(error.value)
        return str(error.value)

    def flip(folder: Path):
        data = bytearray((folder / "sentencepiece.model").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "sentencepiece.model").write_bytes(data)

    def rewrite(text: str):
        return lambda folder: (folder / "tokenizer.json").write_text(text)

    assert "changed" in damaged(flip)
    assert "no tokenizer" in damaged(shutil.rmtree)
    assert "no tokenizer" in damaged(lambda folder: (folder / "sentencepiece.model").unlink())
    assert "damaged" in damaged(rewrite("{"))
    assert "damaged" in damaged(rewrite("{}"))
    assert "unknown kind" in damaged(rewrite('{"kind": "x", "fingerprint": "y"}'))
    other = json.dumps({"kind": "bytes", "fingerprint": trained.fingerprint})
    assert "changed" in damaged(rewrite(other))


def test_a_lossy_sentencepiece_model_is_refused(texts, tmp_path):
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("".join(texts).split("\n")),
        model_writer=model,
        vocab_size=500,
        model_type="bpe",
        minloglevel=2,
    )
    with pytest.raises(UserError, match="loses text"):
        tokenizers.SentencePieceTokenizer(model.getvalue())
    with pytest.raises(UserError, match="not a SentencePiece model"):
        tokenizers.SentencePieceTokenizer(b"nonsense")


@pytest.mark.parametrize("rule", ["71\t7A", "71 75 69\t7A"])
def test_a_sentencepiece_model_with_rules_of_its_own_is_refused(rule, tmp_path, monkeypatch):
    """Such as z for q: the text has its length, and no probe has the q."""
    (tmp_path / "rules.tsv").write_text(rule + "\n")
    train = sentencepiece.SentencePieceTrainer.train

    def with_rules(normalization_rule_name, **options):
        train(normalization_rule_tsv=str(tmp_path / "rules.tsv"), **options)

    words = ["the quick and the quiet\n" * 50]
    tokenizers.train_sentencepiece(words, 280, tmp_path / "plain")
    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", with_rules)
    with pytest.raises(UserError, match="loses text"):
        tokenizers.train_sentencepiece(words, 280, tmp_path / "ruled")


def test_a_sentencepiece_model_of_broken_pieces_is_one_line(trained):
    model = trained._files()["sentencepiece.model"]
    piece = next(p for p in trained.pieces(np.arange(300, 512)) if len(p) > 3 and p.isascii())
    piece = piece.strip().encode()
    with pytest.raises(UserError, match="not a SentencePiece model"):
        tokenizers.SentencePieceTokenizer(model.replace(piece, b"\xa5" + piece[1:], 1))


def test_gpt2_without_files_is_one_line(monkeypatch, tmp_path):
    monkeypatch.delenv("CR_JAX_GPT2", raising=False)
    with pytest.raises(UserError, match="CR_JAX_GPT2"):
        Gpt2Tokenizer()
    with pytest.raises(UserError, match=r"encoder\.json"):
        Gpt2Tokenizer(tmp_path)
    (tmp_path / "encoder.json").write_text('{"a": 0, "<|endoftext|>": 1}')
    (tmp_path / "vocab.bpe").write_text("#version\na b\n")
    with pytest.raises(UserError, match="not a GPT-2 vocabulary"):
        Gpt2Tokenizer(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"!": 10**9},
        {"!": -1},
        {"!": 1},
        {"!": 0.0},
        {"!": "0"},
        {"<|endoftext|>": 10**9},
        {"<|endoftext|>": 258.0},
        {"!": None, "!!": 0},
    ],
)
def test_gpt2_with_other_ids_is_refused(change, tmp_path):
    tiny_gpt2.write(tmp_path, "ab ab ac", 2)
    path = tmp_path / "encoder.json"
    ids = json.loads(path.read_text())
    assert Gpt2Tokenizer(tmp_path).vocab_size == 259 and (ids["!"], ids["<|endoftext|>"]) == (
        0,
        258,
    )
    ids = {piece: i for piece, i in (ids | change).items() if i is not None}
    path.write_text(json.dumps(ids))
    with pytest.raises(UserError, match="are not a GPT-2 vocabulary"):
        Gpt2Tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "[" * 99_999, '{"<|endoftext|>": 256, "a": {}}'])
def test_gpt2_of_no_vocabulary_is_refused(text, tmp_path):
    tiny_gpt2.write(tmp_path)
    (tmp_path / "encoder.json").write_text(text)
    with pytest.raises(UserError, match="are not a GPT-2 vocabulary"):
        Gpt2Tokenizer(tmp_path)


def test_gpt2_merges_by_rank(gpt2, texts):
    """Against the algorithm itself: of all neighbouring pieces the pair learnt first is joined."""
    pairs = tiny_gpt2.merges("".join(texts)[:30_000], 120)
    assert gpt2.vocab_size == 256 + len(pairs) + 1 == gpt2.end_id + 1
    ids = {
        piece: i
        for i, piece in enumerate([*tiny_gpt2.CHARACTER.values(), *(a + b for a, b in pairs)])
    }
    words = [" " + word for word in "".join(texts).split() if word.isalpha()][:300]
    shorter = 0
    for word in words:
        pieces = tuple(tiny_gpt2.CHARACTER[b] for b in word.encode())
        for pair in pairs:
            pieces = tiny_gpt2.merged(pieces, pair)
        assert gpt2.encode(word).tolist() == [ids[piece] for piece in pieces], word
        shorter += len(pieces) < len(word.encode())
    assert shorter > 250  # the merges are of use, so their order was tested


@pytest.mark.skipif(
    not os.environ.get("CR_JAX_GPT2"),
    reason="CR_JAX_GPT2 does not name a folder with encoder.json and vocab.bpe",
)
def test_gpt2_ids_are_the_published_ones():
    tokenizer = Gpt2Tokenizer()
    assert tokenizer.vocab_size == 50257 and tokenizer.end_id == 50256
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
