"""A tokenizer.json of Hugging Face loses nothing, gives the package's own ids, or is refused."""

import json

import numpy as np
import pytest
import tiny_gpt2
import tiny_huggingface
import tokenizers
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

from cr_jax.config import build, default, domain
from cr_jax.data import experiment_text
from cr_jax.data.encoding import Encoder
from cr_jax.data.sources import Document
from cr_jax.data.tokenizers import (
    Gpt2Tokenizer,
    HuggingFaceTokenizer,
    Tokenizer,
    huggingface,
    load_tokenizer,
)
from cr_jax.errors import UserError

BYTE_LEVEL, FALLBACK = tiny_huggingface.byte_level(), tiny_huggingface.byte_fallback()
PROGRAM = "def f(x):\n    return x  # the sum, ünder <|endoftext|>\n"


def template(tokenizer):
    """What BERT and Llama do to a text before and after it."""
    end = tiny_huggingface.END
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{end} $A {end}", special_tokens=[(end, 0)]
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=64)


def with_nfc(tokenizer):
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])


def with_spaces(tokenizer):
    """As GPT-NeoX's: runs of spaces that are tokens, but not special ones."""
    tokenizer.add_tokens([AddedToken("    ", normalized=False), AddedToken("<|x|>")])


@pytest.mark.parametrize(
    "data",
    [
        BYTE_LEVEL,
        FALLBACK,
        tiny_huggingface.byte_level(template),
        tiny_huggingface.byte_level(with_nfc),
        tiny_huggingface.byte_level(with_spaces),
    ],
    ids=["byte_level", "fallback", "template", "nfc", "spaces"],
)
def test_text_comes_back(data, tmp_path):
    tokenizer = HuggingFaceTokenizer(data)
    assert isinstance(tokenizer, Tokenizer)
    random = np.random.default_rng(0)
    for length in range(60):
        text = PROGRAM[: length + 1] + "".join(
            chr(c) for c in random.integers(0, 0x110000, length) if not 0xD800 <= c < 0xE000
        )
        ids = tokenizer.encode(text)
        assert ids.dtype == np.uint32 and tokenizer.decode(ids) == text
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())
        assert tokenizer.end_id not in ids and ids.max() < tokenizer.vocab_size
    assert tokenizer.encode("").shape == (0,)
    texts = [PROGRAM, "", "\u2581 a", PROGRAM * 3]
    for text, ids in zip(texts, tokenizer.encode_many(texts), strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert tokenizer.pieces(np.array([tokenizer.end_id])) == ["<end>"]

    tokenizer.save(tmp_path / "a")
    again = load_tokenizer(tmp_path / "a")
    assert again.kind == "huggingface" and again.fingerprint == tokenizer.fingerprint
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == data  # readable elsewhere


def test_ids_are_those_of_the_package():
    plain = PROGRAM.replace(tiny_huggingface.END, "")
    for data in (BYTE_LEVEL, FALLBACK):
        theirs = tokenizers.Tokenizer.from_str(data.decode())
        ours = HuggingFaceTokenizer(data)
        assert ours.encode(plain).tolist() == theirs.encode(plain, add_special_tokens=False).ids
        assert len(ours.encode(plain)) < len(plain.encode()), "no merge was used"


def test_ids_are_those_of_gpt2_from_either_of_its_files(tmp_path):
    """The same merges by tiktoken from OpenAI's names, Hugging Face's names and tokenizer.json."""
    tiny_gpt2.write(tmp_path / "openai", tiny_huggingface.TEXT, 24)
    (tmp_path / "hf").mkdir()
    for name, other in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        (tmp_path / "hf" / other).write_bytes((tmp_path / "openai" / name).read_bytes())
    first, second = Gpt2Tokenizer(tmp_path / "openai"), Gpt2Tokenizer(tmp_path / "hf")
    assert first.fingerprint == second.fingerprint
    model = tokenizers.models.BPE.from_file(
        *(str(tmp_path / "hf" / name) for name in ("vocab.json", "merges.txt"))
    )
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([tiny_huggingface.END])
    third = HuggingFaceTokenizer(made.to_str().encode())
    assert third.end_id == first.end_id and third.vocab_size == first.vocab_size
    np.testing.assert_array_equal(third.token_bytes, first.token_bytes)
    for text in (tiny_huggingface.TEXT, PROGRAM, "I'll  go\n\n\tüber 12345"):
        np.testing.assert_array_equal(third.encode(text), first.encode(text))


def test_without_a_known_end_the_tokenizer_gets_one():
    tokenizer = HuggingFaceTokenizer(tiny_huggingface.edited(BYTE_LEVEL, added_tokens=[]))
    assert tokenizer.end_id == tokenizer.vocab_size - 1
    assert tokenizer.token_bytes[tokenizer.end_id] == 0


def refusal(data: bytes) -> str:
    with pytest.raises(UserError) as error:
        HuggingFaceTokenizer(data, "F/tokenizer.json")
    assert "\n" not in str(error.value) and str(error.value).startswith("F/tokenizer.json ")
    return str(error.value)


def test_what_would_lose_text_is_refused():
    prefixed = tiny_huggingface.byte_level(
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True))
    )
    lower = tiny_huggingface.byte_level(lambda t: setattr(t, "normalizer", normalizers.Lowercase()))
    stripped = tiny_huggingface.byte_level(
        lambda t: t.add_tokens([AddedToken("<x>", lstrip=True, rstrip=True)])
    )
    for lossy in (prefixed, lower, stripped, tiny_huggingface.byte_fallback(prefix=True)):
        assert "loses text: '" in refusal(lossy)
    assert "prefix before pieces" in refusal(tiny_huggingface.word_pieces())
    few = json.loads(FALLBACK)["model"]["vocab"]
    few.pop("<0xFF>")
    holed = tiny_huggingface.edited(FALLBACK, model={"vocab": few})
    assert "no token for 1 of the 256 bytes" in refusal(holed)
    assert "at random" in refusal(tiny_huggingface.edited(BYTE_LEVEL, model={"dropout": 0.1}))


def test_what_no_probe_shows_is_noticed_in_use():
    rare = tiny_huggingface.byte_level(
        lambda t: setattr(t, "normalizer", normalizers.Replace("zebra", "horse!"))
    )
    tokenizer = HuggingFaceTokenizer(rare)
    assert tokenizer.decode(tokenizer.encode("a cow")) == "a cow"
    with pytest.raises(UserError, match=r"loses text: 'a zebra' comes back as 'a horse!'"):
        tokenizer.encode("a zebra")


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"{}", b'{"model": {"type": "x"}}', b"\xff"])
def test_what_is_no_tokenizer_is_refused(data):
    assert "is no tokenizer.json" in refusal(data)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    assert "install cr_jax[hf]" in refusal(BYTE_LEVEL)


def test_an_experiment_names_the_folder(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(BYTE_LEVEL)
    config = default()
    config.tokenizer.kind, config.train.steps = "huggingface", 1
    config.data.domains.math = domain(["samples/math"], ["samples/math"], ["samples/math"])
    with pytest.raises(UserError, match=r"needs config\.tokenizer\.folder"):
        build(config)
    config.tokenizer.folder = str(tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot read .*none/tokenizer\.json"):
        experiment_text.make_tokenizer(build(config), tmp_path)
    config.tokenizer.folder = str(tmp_path)
    made = experiment_text.make_tokenizer(build(config), tmp_path)
    assert made.fingerprint == HuggingFaceTokenizer(BYTE_LEVEL).fingerprint
    with Encoder(made, jobs=2) as encoder:
        assert encoder.jobs == 2  # other processes can read it
        (part,) = encoder([Document(PROGRAM, "a", "a")])
        assert part.tokens.tolist() == [*made.encode(PROGRAM).tolist(), made.end_id]


@pytest.mark.parametrize(
    "fields",
    [
        {"normalizer": {"type": "Sequence", "normalizers": 3}},
        {"normalizer": {"type": "Sequence"}},
        {"added_tokens": [{"id": 0}]},
        {"added_tokens": 3},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [3]}},
        {"model": {"dropout": "x"}},
        {"model": {"vocab": {"a": 1 << 31}, "merges": []}},
        {"model": {"vocab": {"a": 1 << 40}, "merges": []}},
        {"model": {"merges": [["a", "zz"]]}},
    ],
)
def test_a_damaged_file_is_one_line(fields):
    refusal(tiny_huggingface.edited(BYTE_LEVEL, **fields))


@pytest.mark.parametrize("prefix", ["a", "abcdefgh"])
def test_a_prefix_of_pieces_never_reaches_the_package(prefix):
    """It cuts characters in two by it, or ends the process."""
    data = tiny_huggingface.edited(BYTE_LEVEL, model={"continuing_subword_prefix": prefix})
    assert "prefix before pieces" in refusal(data)


def test_a_panic_of_the_package_is_one_line(monkeypatch):
    class PanicException(BaseException):
        pass

    def panics(settings, place):
        raise PanicException("slice index\nstarts at 2")

    monkeypatch.setattr(huggingface, "_opened", panics)
    assert "is damaged (slice index starts at 2)" in refusal(BYTE_LEVEL)


def with_token(token=None, **vocabulary):
    settings = json.loads(BYTE_LEVEL)
    vocab = settings["model"]["vocab"] | vocabulary
    added = [settings["added_tokens"][0] | (token or {})]
    return tiny_huggingface.edited(BYTE_LEVEL, model={"vocab": vocab}, added_tokens=added)


def test_ids_that_the_vocabulary_does_not_have_are_refused():
    for i in (7, 999_999_999, 1 << 31):
        assert f"the id {i}, its vocabulary 0" in refusal(with_token({"id": i}))
    assert HuggingFaceTokenizer(with_token({"id": 0})).end_id == 0
    assert "the same id 1" in refusal(with_token(zz=1))


@pytest.mark.parametrize("i", [600, 4_000_000, (1 << 32) - 2])
def test_no_table_is_made_of_an_id_far_behind_the_others(i, monkeypatch):
    made = []
    monkeypatch.setattr(HuggingFaceTokenizer, "_bytes_of", lambda *a: made.append(a) or b"")
    assert f"gives 'zz' the id {i:,}, more than 2 times its 299 tokens" in refusal(with_token(zz=i))
    assert not made
    monkeypatch.undo()
    assert HuggingFaceTokenizer(with_token(zz=310)).vocab_size == 311  # some holes are well


def test_other_text_of_the_same_length_is_noticed_in_use():
    tokenizer = HuggingFaceTokenizer(
        tiny_huggingface.byte_level(
            lambda t: setattr(t, "normalizer", normalizers.Replace("q", "z"))
        )
    )
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_many(["a", text])):
        with pytest.raises(UserError, match="loses text: 'a quiet' comes back as 'a zuiet'"):
            encode("a quiet")


def test_pieces_without_an_unknown_one_are_refused():
    """The package raises a bare Exception."""
    model = {"type": "Unigram", "unk_id": None, "byte_fallback": True}
    model["vocab"] = [[f"<0x{b:02X}>", -9.0] for b in range(256)] + [["a", -1.0]]
    settings = json.loads(FALLBACK) | {"model": model, "added_tokens": []}
    assert "is damaged (" in refusal(json.dumps(settings).encode())
