"""A bank's bigram models are read without JAX and without parameters."""

import subprocess
import sys

import pytest
from tiny_bank import altered, in_memory, refuses, stored

from cr_jax.bank import pretrained
from cr_jax.bank.bigram_bank import BigramBank


def test_it_holds_what_the_bank_holds(tmp_path):
    whole = in_memory(3)
    stored(tmp_path / "bank", whole)
    bank = BigramBank.load(tmp_path / "bank")
    assert bank.names == whole.names and bank.window == whole.model.window
    assert bank.tokenizer.fingerprint == whole.tokenizer.fingerprint
    assert bank.text_form == whole.text_form and bank.screen is None
    for ours, theirs in zip(bank.bigrams, whole.bigrams.values(), strict=True):
        assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))


def test_a_changed_file_is_refused_and_a_missing_model_means_none(tmp_path):
    stored(tmp_path / "bare", altered(in_memory(2), bigram={"e1": None}))
    assert BigramBank.load(tmp_path / "bare").bigrams == ()
    stored(tmp_path / "bank", in_memory(2))
    file = tmp_path / "bank/experts/e1/bigram.safetensors"
    file.write_bytes(file.read_bytes()[:-2] + b"xx")
    refuses(lambda: BigramBank.load(tmp_path / "bank"), "bigram.safetensors")


@pytest.mark.slow
def test_no_jax_is_imported_for_what_bigram_models_decide():
    code = (
        "import sys; from cr_jax.bank import pretrained;"
        "from cr_jax.routing.many import ManyRouter;"
        "r = ManyRouter.open(pretrained.folder()); list(r.route([]));"
        "assert r.bank.lookup and r.bank.screen; assert 'jax' not in sys.modules"
    )
    assert pretrained.folder().is_dir()
    subprocess.run([sys.executable, "-c", code], check=True)
