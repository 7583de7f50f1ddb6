"""A bank goes to the Hub's folders and comes back byte for byte; what does not fit is refused."""

import dataclasses
import json
import os
import resource
import shutil

import pytest
import safetensors.numpy
import tiny_bank
import tiny_huggingface
from tiny_bank import contents, leaves, refuses

import cr_jax
from cr_jax.bank import Expert, ExpertBank, cascade_file, pretrained
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.exchange import export, import_exports, is_export
from cr_jax.cli import main
from cr_jax.data.tokenizers import HuggingFaceTokenizer


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bank of e0, e1, e2 with bigram models, language models and a cascade, and its export."""
    place = tmp_path_factory.mktemp("exchange")
    tiny_bank.with_lms(place / "bank")
    assert export(place / "bank", place / "out", "apache-2.0") == ["e0", "e1", "e2"]
    return place / "bank", place / "out"


def same(a: ExpertBank, b: ExpertBank) -> None:
    assert a.names == b.names and a.settings == b.settings
    for one, other in zip(a.experts, b.experts, strict=True):
        assert leaves(one.params) == leaves(other.params)
        assert leaves(one.lm) == leaves(other.lm)
        assert one.calibration.to_json() == other.calibration.to_json()
        assert one.about == other.about
        assert leaves(tuple(one.bigram)) == leaves(tuple(other.bigram))


def test_a_whole_bank_comes_back_byte_for_byte(exported, tmp_path):
    bank, out = exported
    assert import_exports([out], tmp_path / "again") == ["e0", "e1", "e2"]
    assert contents(tmp_path / "again") == contents(bank)
    again = ExpertBank.load(tmp_path / "again")
    same(again, ExpertBank.load(bank))
    assert leaves(again.seed_lm) == leaves(ExpertBank.load(bank).seed_lm)
    windows = tiny_bank.spread()
    one, other = (cr_jax.route_windows(b, windows) for b in (ExpertBank.load(bank), again))
    assert leaves(tuple(one)) == leaves(tuple(other))  # residuals, ranks and p-values


def test_the_shipped_bank_comes_back_with_its_cascade_and_screen(tmp_path):
    """Also its older names of files, whose bytes the seals are of."""
    export(pretrained.folder(), tmp_path / "out")
    import_exports([tmp_path / "out"], tmp_path / "again")
    assert contents(tmp_path / "again") == contents(pretrained.folder())


def test_a_folder_is_a_repository_of_the_hub(exported):
    bank, out = exported
    place = out / "experts" / "e1"
    assert {path.name for path in place.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "expert.json",
        "calibration.json",
        "manifest.json",
        "bigram.safetensors",
        "lm.safetensors",
        "tokenizer",
    }
    assert json.loads((place / "config.json").read_text())["model_type"] == "cr_jax"
    tensors = safetensors.numpy.load_file(place / "model.safetensors")
    own = ExpertBank.load(bank).expert("e1").params
    assert sum(x.size for x in tensors.values()) == sum(x.size for x in leaves_of(own))
    card = (place / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: cr_jax\nlicense: apache-2.0\ntags:\n- ")
    assert "hf download OWNER/e1 --local-dir e1" in card
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(place / "README.md").data
    assert (data.library_name, data.license) == ("cr_jax", "apache-2.0")


def leaves_of(params):
    import jax

    return jax.tree.leaves(params)


def test_one_expert_makes_a_bank_or_joins_one(exported, tmp_path):
    bank, out = exported
    experts = [out / "experts" / name for name in ("e2", "e0")]
    assert import_exports(experts[:1], tmp_path / "new") == ["e2"]
    assert import_exports(experts[1:], tmp_path / "new") == ["e0"]
    made = ExpertBank.load(tmp_path / "new")
    assert made.verify() == []
    same(made, ExpertBank.load(bank, ["e2", "e0"]))
    before = contents(tmp_path / "new")
    refuses(lambda: import_exports(experts, tmp_path / "new"), "already has an expert 'e2'")
    assert contents(tmp_path / "new") == before
    assert import_exports(experts, tmp_path / "both") == ["e2", "e0"]


def test_experts_are_opened_one_at_a_time(exported, tmp_path):
    """A bank may have more of them than a process may open."""
    _, out = exported
    sources = []
    for number in range(20):
        place = tmp_path / f"x{number}"
        shutil.copytree(out / "experts" / "e1", place)
        about = json.loads((place / "config.json").read_text()) | {"expert": place.name}
        (place / "config.json").write_text(json.dumps(about))
        sources.append(place)
    names = [place.name for place in sources]
    used = len(os.listdir("/dev/fd"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 14, before[1]))
    try:
        assert import_exports(sources, tmp_path / "new") == names
        assert export(tmp_path / "new", tmp_path / "out") == names
        assert import_exports([tmp_path / "out"], tmp_path / "again") == names
        import_exports([out / "experts" / "e2"], tmp_path / "grown")
        assert (
            import_exports([tmp_path / "out"], tmp_path / "grown") == names
        )  # to one that is there
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert contents(tmp_path / "again") == contents(tmp_path / "new")


def test_a_folder_can_be_opened_as_it_is(exported, tmp_path):
    bank, out = exported
    same(cr_jax.load(out), ExpertBank.load(bank))
    one = cr_jax.load(out / "experts" / "e1")
    same(one, ExpertBank.load(bank, ["e1"]))
    assert one.folder is None
    assert is_export(out) and is_export(out / "experts" / "e1") and not is_export(bank)


def test_what_does_not_fit_leaves_nothing(exported, tmp_path):
    bank, out = exported
    broken = tmp_path / "out"

    def after(change, *words, sources=(broken,)):
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(out, broken)
        change(broken / "experts" / "e1")
        refuses(lambda: import_exports(sources, tmp_path / "new"), *words)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def flip(name):
        def change(place):
            data = bytearray((place / name).read_bytes())
            data[len(data) // 2] ^= 1
            (place / name).write_bytes(data)

        return change

    def link(place):
        (place / "model.safetensors").unlink()
        (place / "model.safetensors").symlink_to(bank / "experts" / "e1" / "params.safetensors")

    def other(place):
        about = json.loads((place / "config.json").read_text())
        about["bank"]["text_form"] = "raw"
        (place / "config.json").write_text(json.dumps(about))

    def named(place):
        about = json.loads((place / "config.json").read_text())
        about["expert"] = "../e1"
        (place / "config.json").write_text(json.dumps(about))

    for name in ("model.safetensors", "calibration.json", "bigram.safetensors", "expert.json"):
        after(flip(name), "changed or cut short", str(broken))  # and no hidden folder
    after(lambda place: (place / "manifest.json").write_text("{}"), "changed or cut short")
    after(lambda place: (place / "lm.safetensors").unlink(), "lm.safetensors is missing")
    after(lambda place: (place / "config.json").unlink(), "is no export of an expert")
    after(link, "is a link")
    after(other, "is an expert of another bank", "text_form")
    after(named, "bad expert name")
    after(lambda place: shutil.rmtree(place), "e1")
    refuses(lambda: import_exports([bank], tmp_path / "new"), "is no export of an expert")
    refuses(lambda: import_exports([tmp_path / "none"], tmp_path / "new"), "cannot be read")
    refuses(lambda: import_exports([out], tmp_path), "is no bank and not empty")


def test_an_export_wants_a_whole_bank_and_an_empty_place(exported, tmp_path):
    bank, out = exported
    refuses(lambda: export(bank, out), "is not an empty folder")
    refuses(lambda: export(bank, tmp_path / "x", "a: b\n"), "no licence's name")
    shutil.copytree(bank, tmp_path / "bank")
    (tmp_path / "bank" / "experts" / "e0" / "calibration.json").write_text("{}")
    refuses(lambda: export(tmp_path / "bank", tmp_path / "x"), "changed or cut short")
    assert not (tmp_path / "x").exists()
    refuses(lambda: ExpertBank.load(out), "no bank at", "cr-jax bank import --bank NEW")


def test_the_command_line(exported, tmp_path, capsys):
    bank, _ = exported
    fit = CandidateFit(1, 0.9, 1.0, None, 1.0, 1.0, 10)
    shutil.copytree(bank, tmp_path / "bank")
    cascade_file.write(tmp_path / "bank", fit, 0, ("e0", "e1", "e2"), 0.0)
    words = ["--bank", str(tmp_path / "bank"), "--format", "hf", str(tmp_path / "out")]
    assert main(["bank", "export", *words]) == 0
    assert "3 experts, e0, e1, e2" in capsys.readouterr().out
    again = ["bank", "import", "--bank", str(tmp_path / "again"), str(tmp_path / "out")]
    assert main(again) == 0
    assert "added e0, e1, e2" in capsys.readouterr().out
    assert (tmp_path / "again" / "cascade.json").is_file()
    assert main(again) == 2
    assert "already has an expert 'e0'" in capsys.readouterr().err
    assert main(["bank", "import", "--bank", str(pretrained.folder()), str(tmp_path / "out")]) == 2
    assert "ships with cr_jax" in capsys.readouterr().err


def test_a_bank_keeps_a_tokenizer_of_hugging_face(tmp_path):
    """Also through an export, where its file is what others read it from."""
    data = tiny_huggingface.byte_level()
    tokenizer = HuggingFaceTokenizer(data)
    model = dataclasses.replace(tiny_bank.TINY, vocab_size=384)
    made = ExpertBank.create(tmp_path / "bank", model, tokenizer)
    params = tiny_bank.one(tiny_bank.fresh(1, model), 0)
    made.add(Expert("e0", params, tiny_bank.FLAT))
    export(tmp_path / "bank", tmp_path / "out")
    assert (tmp_path / "out/experts/e0/tokenizer/tokenizer.json").read_bytes() == data
    again = cr_jax.load(tmp_path / "out" / "experts" / "e0").tokenizer
    assert (again.kind, again.fingerprint) == ("huggingface", tokenizer.fingerprint)
    file = tmp_path / "bank" / "tokenizer" / "tokenizer.json"
    file.write_bytes(data.replace(b"1.0", b"1.1"))
    refuses(lambda: ExpertBank.load(tmp_path / "bank"), "changed or cut short")
