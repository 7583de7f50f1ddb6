"""What cannot be trained is given up and says why; what is only in the way is waited for."""

import dataclasses
import json
import shutil

import pytest
import tiny_grow
from tiny_bank import refuses
from tiny_grow import KINDS, OPTIONS, arrivals

from cr_jax.bank import ExpertBank
from cr_jax.bank.files import BankFolder, CannotWrite
from cr_jax.continual import events, grow, training
from cr_jax.continual.grow import beside
from cr_jax.errors import UserError
from cr_jax.host.inside import NotInside
from cr_jax.host.locks import Busy

STREAM = [*KINDS * 3, *["marks", "digits"] * 11, "letters"]
NEAR = dataclasses.replace(OPTIONS, start="nearest")


@pytest.fixture(scope="module")
def pending(tmp_path_factory):
    """A bank that was stopped while it trained the expert of a domain."""

    def stopped(*_):
        raise KeyboardInterrupt

    place = tiny_grow.bank(tmp_path_factory.mktemp("pending"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_new", stopped)
        with pytest.raises(KeyboardInterrupt):
            grow.grow(place, arrivals(STREAM), NEAR)
    return place


@pytest.fixture
def bank(pending, tmp_path):
    shutil.copytree(beside(pending), tmp_path / "bank.buffer")
    return shutil.copytree(pending, tmp_path / "bank")


def of(said, kind):
    return [e for e in said if e["event"] == kind]


def journal(bank):
    lines = (beside(bank) / "journal.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def failing(error):
    def train(*_):
        raise error

    return train


def test_a_domain_that_cannot_be_trained_is_given_up_and_keeps_its_documents(bank, monkeypatch):
    (first,) = of(journal(bank), "found")
    kept = list((beside(bank) / "documents").iterdir())
    monkeypatch.setattr(training, "train_new", failing(UserError("too little text")))
    said = grow.grow(bank, arrivals(KINDS, 20_000), NEAR)
    assert said[0]["event"] == "abandoned" and len(of(said, "document")) == 2
    assert "too little text" in events.line(said[0])
    assert set(kept) <= set((beside(bank) / "documents").iterdir())
    assert not list((beside(bank) / "found").iterdir())
    # The next alarm finds them again, with what came since.
    monkeypatch.setattr(training, "train_new", tiny_grow.trained)
    later = grow.grow(bank, arrivals(["marks"] * 20, 30_000), NEAR)
    assert [e["expert"] for e in of(later, "mounted")] == ["new-2"]
    assert set(first["ids"]) <= set(of(later, "found")[0]["ids"])


def of_the_disk():
    try:
        raise PermissionError(13, "Permission denied")
    except OSError as error:
        try:
            raise UserError("the workdir cannot be made") from None
        except UserError as found:
            assert found.__context__ is error
            return found


@pytest.mark.parametrize(
    "error",
    [
        CannotWrite("the disk is full"),
        OSError(28, "No space left on device"),
        Busy("another process holds it"),
        NotInside("training/new-1 is a link"),
        of_the_disk(),
    ],
)
def test_what_is_only_in_the_way_gives_nothing_up(bank, monkeypatch, error):
    before = (beside(bank) / "journal.jsonl").read_bytes()
    monkeypatch.setattr(training, "train_new", failing(error))
    refuses(lambda: grow.grow(bank, [], NEAR), str(error.args[-1]))
    assert (beside(bank) / "journal.jsonl").read_bytes() == before
    monkeypatch.setattr(training, "train_new", tiny_grow.trained)
    assert of(grow.grow(bank, [], NEAR), "mounted")


def test_an_expert_that_the_user_gave_the_same_name_is_not_touched(bank):
    ExpertBank.load(bank).add(dataclasses.replace(tiny_grow.expert("marks"), name="new-1"))
    seal = BankFolder(bank).seals("new-1")
    said = grow.grow(bank, [], NEAR)  # by `train_new` itself
    assert "new-1" in said[0]["why"] and said[0]["event"] == "abandoned"
    assert BankFolder(bank).seals("new-1") == seal
    assert of(said, "settled")  # it knows them


def test_without_the_expert_to_begin_with_it_begins_with_noise(bank, monkeypatch):
    (found,) = of(journal(bank), "found")
    starts = []

    def hear(path, new, workdir, say):
        starts.append(new.start)
        assert not workdir.exists()
        tiny_grow.trained(path, new, workdir, say)

    (beside(bank) / "training" / "new-1").mkdir(parents=True)
    BankFolder(bank).remove(found["start"])
    monkeypatch.setattr(training, "train_new", hear)
    said = grow.grow(bank, [], NEAR)
    assert starts == [""] and said[0]["event"] == "begins" and of(said, "mounted")
    assert found["start"] in events.line(said[0])


def test_text_of_what_is_kept_is_routed_again_also_when_a_kill_comes_before(bank, monkeypatch):
    monkeypatch.setattr(training, "train_new", tiny_grow.trained)
    with monkeypatch.context() as patch:
        patch.setattr(grow.Grower, "_again", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            grow.grow(bank, [], NEAR)
    routed, route = [], grow.ManyRouter.route

    def heard(self, texts):
        texts = list(texts)
        routed.extend(texts)
        return route(self, texts)

    monkeypatch.setattr(grow.ManyRouter, "route", heard)
    kept = len(list((beside(bank) / "documents").iterdir()))
    assert kept
    grow.grow(bank, [], dataclasses.replace(NEAR, dry_run=True))
    assert routed == []
    grow.grow(bank, [], NEAR)
    assert len(routed) == kept
