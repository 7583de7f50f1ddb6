"""Language models in a bank: stored and sealed with their experts, read when they are wanted."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest
import tiny_bank
from tiny_bank import FLAT, TEXT, TINY, TINY_LM, contents, fresh, leaves, one, refuses

from cr_jax.bank import (
    Expert,
    ExpertBank,
    LanguageModels,
    bank,
    headers,
    import_expert,
    parameters,
    store_lms,
)
from cr_jax.bank.files import BankFolder, read_sealed, sha256, write_sealed
from cr_jax.bank.manifest import LM, MANIFEST, write_manifest
from cr_jax.cli import main
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.host import inside
from cr_jax.host.inside import Inside
from cr_jax.router import route
from cr_jax.routing.cascade import Cascade

WIDE = dataclasses.replace(TINY_LM, d_ff=20)


def lm(index=0, config=TINY_LM):
    """Parameters of a language model; others for another index."""
    return one(fresh(index + 1, config, seed=5), index)


def sealed(folder, name="e0", shape=TINY_LM):
    """Correct SHA-256s over what now lies in an expert's folder."""
    expert = folder / "experts" / name
    files = BankFolder(folder)
    raw = dataclasses.asdict(shape) if (expert / LM).exists() else None
    write_manifest(expert, files.index["tokenizer"], raw)
    entry = {"sha256": bank_sha(expert)}
    files.replace({**files.index, "experts": {**files.index["experts"], name: entry}})


def bank_sha(expert):
    return sha256(expert / MANIFEST)


def write(file, params):
    file.write_bytes(parameters.dumps(params))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A bank of three experts with language models, and their seed."""
    folder = tmp_path_factory.mktemp("lms") / "bank"
    tiny_bank.with_lms(folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "bank")
    return tmp_path / "bank"


@pytest.mark.parametrize("dtype", parameters.DTYPES)
def test_they_come_back_as_their_files_hold_them(tmp_path, dtype):
    made = ExpertBank.create(tmp_path / "bank", TINY, ByteTokenizer(), lm=TINY_LM)
    for i in range(2):
        params = one(fresh(2), i)
        made = made.add(Expert(f"e{i}", params, FLAT, lm=lm(i)), dtype)
    store_lms(tmp_path / "bank", LanguageModels(TINY_LM, seed=lm(7)), dtype)
    loaded = ExpertBank.load(tmp_path / "bank")
    assert loaded.lm == TINY_LM and loaded.verify() == []
    for name, i in (("e0", 0), ("e1", 1)):
        want = parameters.rounded(lm(i), dtype)
        assert leaves(loaded.expert(name).lm) == leaves(made.expert(name).lm) == leaves(want)
        assert leaves(one(loaded.lm_params, i)) == leaves(want)
    assert leaves(loaded.seed_lm) == leaves(parameters.rounded(lm(7), dtype))
    exact = dtype == "float32"
    assert (leaves(loaded.expert("e0").lm) == leaves(lm(0))) is exact


def test_a_bank_without_any_is_written_as_before(tmp_path):
    plain = tiny_bank.on_disk(tmp_path / "bank")
    assert set(read_sealed(plain.folder / "experts/e0" / MANIFEST)) == {
        "format",
        "tokenizer",
        "files",
    }
    assert "lm" not in BankFolder(plain.folder).index
    assert plain.lm is None is plain.seed_lm
    assert ExpertBank.load(plain.folder).lm is None


def test_routing_reads_none(whole, monkeypatch, tmp_path):
    read, real = [], inside.open_inside

    def opened(folder, name, *more):
        read.append(name)
        return real(folder, name, *more)

    monkeypatch.setattr(inside, "open_inside", opened)
    without = ExpertBank.load(whole, lms=False)
    assert without.seed_lm is None and all(e.lm is None for e in without.experts)
    (tmp_path / "text").write_text(TEXT)
    assert main(["route", "--bank", str(whole), str(tmp_path / "text")]) == 0
    assert (
        main(["route", "--min-candidates", "1", "--bank", str(whole), str(tmp_path / "text")]) == 0
    )
    ask = ["reconstruct", "--expert", "e0", "--bank", str(whole), str(tmp_path / "text")]
    assert main(ask) == 0
    assert len(read) > 9 and LM not in read
    both = ExpertBank.load(whole)  # negative control
    assert read.count(LM) == 4
    assert route(without, TEXT) == route(both, TEXT)
    refuses(lambda: without.lm_params, "e0, e1, e2", "lms=True")


def test_verify_covers_them_and_routing_is_not_stopped(copy, tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    for file in (f"experts/e1/{LM}", f"seed_lm/{LM}", f"seed_lm/{MANIFEST}"):
        raw = (copy / file).read_bytes()
        (copy / file).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        refuses(lambda: ExpertBank.load(copy), "changed or cut short", file)
        assert len(BankFolder(copy).verify()) == 1
        assert main(["bank", "verify", "--bank", str(copy)]) == 2
        assert main(["route", "--bank", str(copy), str(tmp_path / "text")]) == 0
        (copy / file).unlink()
        refuses(lambda: ExpertBank.load(copy), "missing", file)
        (copy / file).write_bytes(raw)
    assert BankFolder(copy).verify() == []
    (copy / "seed_lm" / "more").write_text("")
    assert "belongs to no expert" in BankFolder(copy).verify()[0]


def test_an_expert_without_may_stand_beside_others(copy):
    added = ExpertBank.load(copy).add(Expert("plain", one(fresh(2), 0), FLAT))
    for mixed in (added, ExpertBank.load(copy)):
        assert [e.lm is None for e in mixed.experts] == [False, False, False, True]
        refuses(lambda m=mixed: m.lm_params, "no language model for plain")
        assert len(jax.tree.leaves(mixed.unmount("plain").lm_params)[0]) == 3
    assert added.remove("plain").lm_params is not None and leaves(added.seed_lm) == leaves(
        ExpertBank.load(copy).seed_lm
    )


def test_in_memory_they_change_nothing_else():
    plain = tiny_bank.in_memory(3)
    params = plain.params
    spoken = plain.with_lms(TINY_LM, {"e2": lm(2)}, lm(7))
    assert plain.lm is None is plain.expert("e2").lm
    assert spoken.params is params and spoken.expert("e0") is plain.expert("e0")
    more = spoken.with_lms(TINY_LM, {"e0": lm(0), "e1": lm(1)})
    assert leaves(one(more.lm_params, 2)) == leaves(lm(2)) and more.lm_params is more.lm_params
    assert leaves(more.seed_lm) == leaves(lm(7))
    assert more.select(["e2", "e0"]).lm == TINY_LM
    assert leaves(one(more.select(["e2", "e0"]).lm_params, 0)) == leaves(lm(2))
    assert plain.select([]).with_lms(TINY_LM, {}).lm_params is None


def of_shape(path, shape):
    """A language model with one parameter of another shape."""
    wrong = jax.tree.map(np.array, lm())
    wrong["params"][path] = np.zeros(shape, np.float32)
    return wrong


NAN = jax.tree.map(lambda x: x * np.nan, lm())
SOME = (
    (TINY_LM, of_shape("start", (9,)), ("params/start", "(9,)", "(8,)", "language model")),
    (TINY_LM, NAN, ("NaN or infinite",)),
    (WIDE, lm(), ("mlp", "20")),
    (dataclasses.replace(TINY_LM, vocab_size=999), lm(), ("vocabulary (999)", "258 pieces")),
    (dataclasses.replace(TINY_LM, vocab_size=100), lm(), ("vocabulary (100)", "258 pieces")),
    (dataclasses.replace(TINY_LM, vocab_size=0), lm(), ("vocab_size",)),
    (dataclasses.replace(TINY_LM, kind="dream"), lm(), ("kind",)),
)


@pytest.mark.parametrize("config, params, words", SOME)
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, config, params, words):
    plain = tiny_bank.on_disk(tmp_path / "bank")
    before = contents(tmp_path)
    refuses(lambda: plain.with_lms(config, {"e0": params}), *words)
    refuses(lambda: plain.with_lms(config, {}, params), *words)
    for given in (LanguageModels(config, None, {"e0": params}), LanguageModels(config, params)):
        refuses(lambda given=given: store_lms(plain.folder, given), *words)
    refuses(lambda: plain.with_lms(TINY_LM, {"e9": lm()}), "'e9'")
    refuses(lambda: store_lms(plain.folder, LanguageModels(TINY_LM, None, {"e9": lm()})), "'e9'")
    refuses(lambda: store_lms(plain.folder, LanguageModels(TINY_LM), "float16"), "float16")
    refuses(lambda: plain.add(Expert("x", one(fresh(1), 0), FLAT, lm=lm())), "lm=")
    assert contents(tmp_path) == before


def test_an_expert_whose_language_model_does_not_fit_is_not_added(copy):
    there, before = ExpertBank.load(copy), contents(copy)
    for params, words in ((of_shape("start", (9,)), ("(9,)",)), (NAN, ("NaN", "'x'"))):
        for call in (there.add, there.mount):
            refuses(
                lambda: call(Expert("x", one(fresh(1), 0), FLAT, lm=params)),  # noqa: B023
                *words,
            )
    refuses(lambda: there.with_lms(WIDE, {"e0": lm(0, WIDE)}), "lm.d_ff=20", "12")
    assert contents(copy) == before


def test_another_shape_on_file_is_refused(copy):
    """Sealed rightly, so that the reader behind the seals is reached."""
    file = copy / "experts/e0" / LM
    good = file.read_bytes()
    write(file, lm(0, WIDE))
    sealed(copy)
    refuses(lambda: ExpertBank.load(copy), LM, "language model needs")
    write(file, NAN)
    sealed(copy)
    refuses(lambda: ExpertBank.load(copy), LM, "NaN")
    file.write_bytes(good)
    sealed(copy, shape=dataclasses.replace(TINY_LM, heads=1, dtype="bfloat16"))
    # Heads show in no shape of a parameter.
    refuses(lambda: ExpertBank.load(copy, lms=False), "lm.heads=1", "2", "e0")
    # How it is run may differ, and how long the texts of its training were.
    sealed(copy, shape=dataclasses.replace(TINY_LM, dtype="bfloat16", window=64))
    assert ExpertBank.load(copy).lm == TINY_LM


def test_a_file_that_bank_json_does_not_announce_is_refused(copy, tmp_path):
    files = BankFolder(copy)
    index = {k: v for k, v in files.index.items() if k not in ("lm", "seed_lm")}
    write_sealed(copy / "bank.json", {**index, "seed_lm": files.index["seed_lm"]})
    refuses(lambda: ExpertBank.load(copy), "seed of language models")
    write_sealed(copy / "bank.json", index)
    for lms in (True, False):
        refuses(lambda lms=lms: ExpertBank.load(copy, lms=lms), LM, "bank.json does not say")
    manifest = read_sealed(copy / "experts/e0" / MANIFEST)
    for odd in ({**manifest, "lm": None}, {k: v for k, v in manifest.items() if k != "lm"}):
        write_sealed(copy / "experts/e0" / MANIFEST, odd)
        refuses(lambda: ExpertBank.load(copy, verify=False), "without its shape")


def test_an_expert_takes_its_own_along(copy, tmp_path):
    source = copy / "experts/e1"
    other = ExpertBank.create(tmp_path / "other", TINY, ByteTokenizer(), lm=TINY_LM).folder
    import_expert(other, source)
    assert leaves(ExpertBank.load(other).expert("e1").lm) == leaves(lm(1))
    tiny_bank.on_disk(tmp_path / "plain")  # has none yet: the first says what they look like
    add = ["bank", "add", "--bank", str(tmp_path / "plain"), str(source), "--name", "new"]
    assert main(add) == 0
    loaded = ExpertBank.load(tmp_path / "plain")
    assert loaded.lm == TINY_LM and leaves(loaded.expert("new").lm) == leaves(lm(1))
    refuses(lambda: loaded.lm_params, "no language model for e0, e1:")
    assert loaded.verify() == []


def test_an_expert_of_another_shape_is_not_copied(copy, tmp_path):
    wide = ExpertBank.create(tmp_path / "wide", TINY, ByteTokenizer(), lm=WIDE).folder
    before, source = contents(wide), copy / "experts/e1"
    refuses(lambda: import_expert(wide, source), "lm.d_ff=12", "20", str(source))
    (source / LM).write_bytes(b"")
    refuses(lambda: import_expert(wide, source), "changed or cut short", str(source))
    write(source / LM, NAN)
    sealed(copy, "e1")
    same = ExpertBank.create(tmp_path / "same", TINY, ByteTokenizer()).folder
    refuses(lambda: import_expert(same, source), "NaN", str(source))
    foreign = dataclasses.replace(TINY_LM, vocab_size=700)
    write(source / LM, lm(0, foreign))
    sealed(copy, "e1", foreign)
    refuses(lambda: import_expert(same, source), "vocabulary (700)")
    assert contents(wide) == before and "lm" not in BankFolder(same).index
    assert ExpertBank.load(same).names == ()


def test_what_is_stored_already_is_not_replaced(copy):
    before = contents(copy)
    own = {n: e.lm for n, e in zip(("e0", "e1"), ExpertBank.load(copy).experts)}
    store_lms(copy, LanguageModels(TINY_LM, None, own))  # the same again
    assert contents(copy) == before
    refuses(lambda: store_lms(copy, LanguageModels(TINY_LM, None, {"e1": lm(2)})), "another", "e1")
    refuses(lambda: store_lms(copy, LanguageModels(TINY_LM, lm(3))), "another seed")
    refuses(lambda: store_lms(copy, LanguageModels(WIDE, None, {})), "lm.d_ff=20")
    assert contents(copy) == before


def test_a_cascade_stays_fitted(tmp_path):
    plain = tiny_bank.stored(tmp_path / "bank", tiny_bank.in_memory(3))
    mine = dict.fromkeys(plain.names, tiny_bank.spread())
    Cascade.fit(plain, mine, min_candidates=1).save()
    before = Cascade.load(plain.folder)
    store_lms(plain.folder, LanguageModels(TINY_LM, None, {"e1": lm(1)}))
    after = Cascade.load(plain.folder)
    assert after.fitted == before.fitted and after.route(TEXT) == before.route(TEXT)
    assert after.bank.verify() == []


@pytest.mark.parametrize("cascade", [False, True])
def test_a_kill_leaves_every_expert_readable_and_the_call_can_be_repeated(
    tmp_path, monkeypatch, cascade
):
    folder = tmp_path / "bank"
    plain = tiny_bank.stored(folder, tiny_bank.in_memory(3))
    if cascade:
        mine = dict.fromkeys(plain.names, tiny_bank.spread())
        Cascade.fit(plain, mine, min_candidates=1).save()
    given = LanguageModels(TINY_LM, lm(7), {n: lm(i) for i, n in enumerate(plain.names)})
    found, real = [], os.replace

    def snapshot(*paths, **folders):
        found.append(tmp_path / "moments" / str(len(found)))
        shutil.copytree(folder, found[-1])
        if paths:
            real(*paths, **folders)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", snapshot)
        store_lms(folder, given)
    snapshot()
    assert len(found) > 10
    want, params = contents(folder), leaves(plain.params)
    spoken = []
    for moment in found:
        for lms in (True, False):
            loaded = ExpertBank.load(moment, lms=lms)
            assert loaded.names == plain.names and leaves(loaded.params) == params
        with_one = [e.name for e in ExpertBank.load(moment).experts if e.lm is not None]
        spoken.append(len(with_one))
        assert all("delete it" in line for line in loaded.verify())  # litter and nothing else
        if cascade:
            Cascade.load(moment)
        import_expert(moment, moment / "experts/e2", "again")
        ExpertBank.load(moment).remove("again")
        store_lms(moment, given)
        litter = [p for p in contents(moment) if any(part.startswith(".") for part in p.parts)]
        assert {k: v for k, v in contents(moment).items() if k not in litter} == want
    assert spoken[0] == 0 and spoken[-1] == 3 and spoken == sorted(spoken) and 1 in spoken


def test_a_full_disk_leaves_the_bank_as_it_was(tmp_path, monkeypatch):
    folder = tmp_path / "bank"
    tiny_bank.on_disk(folder)
    before, real = contents(folder), Inside.draft

    def draft(inside, name, data):
        if "e1" in str(inside.path):
            raise OSError(28, "No space left on device")
        return real(inside, name, data)

    monkeypatch.setattr(Inside, "draft", draft)
    given = LanguageModels(TINY_LM, lm(7), {"e0": lm(0), "e1": lm(1)})
    refuses(lambda: store_lms(folder, given), "No space left")
    assert contents(folder) == before


def test_who_reads_while_they_are_stored_reads_them(tmp_path, monkeypatch):
    """bank.json is read first and the manifests later: what was replaced between is read again."""
    folder = tmp_path / "bank"
    tiny_bank.on_disk(folder)
    real, calls = bank.read_settings, []

    def meanwhile(files):
        found = real(files)
        if not calls:
            calls.append(files)
            store_lms(folder, LanguageModels(TINY_LM, None, {"e0": lm(0)}))
        return found

    for verify in (True, False):
        calls.clear()
        shutil.rmtree(folder)
        tiny_bank.on_disk(folder)
        with monkeypatch.context() as patch:
            patch.setattr(bank, "read_settings", meanwhile)
            assert leaves(ExpertBank.load(folder, verify=verify).expert("e0").lm) == leaves(lm(0))
        assert len(calls) == 1


def test_the_list_says_who_has_one(copy, tmp_path, capsys):
    ExpertBank.load(copy).add(Expert("plain", one(fresh(2), 0), FLAT))
    count = sum(x.size for x in jax.tree.leaves(lm()))
    assert main(["bank", "list", "--bank", str(copy)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert (
        out[1]
        == f"language models: 3 of 4 experts; a seed of {count:,} parameters, for unknown text"
    )
    said = f"language model of {count:,} parameters"
    assert [said in line for line in out[2:]] == [True, True, True, False]
    assert main(["bank", "list", "--json", "--bank", str(copy)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["lm_parameters"] for row in rows] == [count, count, count, None]
    tiny_bank.on_disk(tmp_path / "none")
    assert main(["bank", "list", "--bank", str(tmp_path / "none")]) == 0
    assert "language" not in capsys.readouterr().out
    small = tiny_bank.with_lms(tmp_path / "small", 1, seed=False, dtype="int8")  # scales are none
    assert headers.count_parameters(BankFolder(small.folder).open_expert("e0"), LM) == count
    assert main(["bank", "list", "--bank", str(small.folder)]) == 0
    assert "no seed" in capsys.readouterr().out
