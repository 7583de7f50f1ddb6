"""A bank grows by unknown text alone, and no stop, disk or file loses a document."""

import dataclasses
import errno
import fcntl
import functools
import json
import os
import shutil

import numpy as np
import pytest
import tiny_bank
import tiny_grow
from tiny_bank import contents, refuses
from tiny_grow import KINDS, OPTIONS, arrivals

import cr_jax
from cr_jax.bank import ExpertBank, cascade_file, screen_file
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.creation import delete_bank
from cr_jax.bank.entry_checks import unused_fits
from cr_jax.bank.files import BankFolder, check_name
from cr_jax.bank.screen_file import Screen
from cr_jax.continual import events, grow, training
from cr_jax.continual.buffer import opened
from cr_jax.continual.grow import beside
from cr_jax.continual.options import Arrival, GrowOptions
from cr_jax.data.encodings import NotText
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside
from cr_jax.host.locks import GROWING, GROWING_HELD, exclusive
from cr_jax.routing.cascade import Cascade

# Enough known text for the test to know what is usual, then some that nobody knows.
STREAM = [*KINDS * 3, *["marks", "digits"] * 11, "letters"]


class Killed(BaseException):
    """As a SIGKILL, nothing on the way catches it."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return tiny_grow.bank(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def bank(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train_new", tiny_grow.trained)
    return shutil.copytree(stored, tmp_path / "bank")


@pytest.fixture(scope="module")
def changes():
    return tiny_grow.Changes()


def of(said, kind):
    return [e for e in said if e["event"] == kind]


def journal(bank):
    lines = (beside(bank) / "journal.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def check_whole(bank, before):
    """Old experts have their bytes, every document is in the journal once, and its text is kept or
    became an expert's."""
    now = contents(bank)
    assert all(now[path] == data for path, data in before.items() if path.parts[0] == "experts")
    # Of an expert that was stopped before bank.json named it, the folder is set aside.
    assert not [line for line in BankFolder(bank).verify() if "was set aside" not in line]
    found = journal(bank)
    ids = [e["id"] for e in of(found, "document")]
    assert len(ids) == len(set(ids)) == len(STREAM)
    unknown = {e["id"] for e in of(found, "document") if not e["known"]}
    used = {key for e in of(found, "found") for key in e["ids"]}
    settled = {e["id"] for e in of(found, "settled")}
    kept = {path.stem for path in (beside(bank) / "documents").iterdir()}
    assert used <= unknown and kept == unknown - used - settled
    assert [p.name for p in (beside(bank) / "found").iterdir()] == []
    return found


def test_unknown_text_gets_an_expert_and_then_is_known(bank):
    before, said = contents(bank), grow.grow(bank, arrivals(STREAM), OPTIONS)
    found = check_whole(bank, before)
    kinds = [e["event"] for e in said]
    assert kinds.index("alarm") < kinds.index("found") < kinds.index("mounted")
    (domain,) = of(said, "found")
    names = {e["id"]: e["name"] for e in of(found, "document")}
    assert all(names[key].endswith("marks") for key in domain["ids"])
    assert domain["verdict"] == "new" and domain["expert"] == "new-1"
    after = grow.grow(bank, arrivals(["marks", "digits", "letters"], 20_000), OPTIONS)
    assert [e["nearest"] for e in of(after, "document")] == ["new-1", *KINDS]
    assert all(e["known"] for e in of(after, "document"))
    assert all(events.line(e) and "\n" not in events.line(e) for e in (*said, *after))
    assert all(json.loads(json.dumps(e, allow_nan=False)) == e for e in said)


def test_known_text_alone_raises_no_alarm_and_mounts_nothing(bank):
    before = contents(bank)
    said = grow.grow(bank, arrivals(KINDS * 15), dataclasses.replace(OPTIONS, run_length=1000))
    assert not of(said, "alarm") and not of(said, "found")
    assert contents(bank) == before


def test_what_was_seen_is_passed_over_whatever_its_name(bank):
    some = arrivals(["marks", "digits", "marks"])
    grow.grow(bank, some, OPTIONS)
    before = len(journal(bank))
    again = grow.grow(bank, some, OPTIONS)
    assert [e["event"] for e in again] == ["end"] and len(journal(bank)) == before
    other = [Arrival("other", some[0].text.replace("\n", "\r\n")), some[1]]
    assert [e["event"] for e in grow.grow(bank, other, OPTIONS)] == ["repeated", "end"]
    assert [e["event"] for e in grow.grow(bank, other, OPTIONS)] == ["end"]


def test_killed_as_it_routes_it_loses_no_text_that_two_files_hold(bank, monkeypatch):
    (one,) = arrivals(["digits"])
    some = [one, Arrival("copy", one.text)]

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(grow.ManyRouter, "route", kill)
        with pytest.raises(Killed):
            grow.grow(bank, some, OPTIONS)
    said = grow.grow(bank, some, OPTIONS)
    assert [e["event"] for e in said] == ["document", "repeated", "end"]
    assert [e["event"] for e in grow.grow(bank, some, OPTIONS)] == ["end"]


def test_binary_empty_and_strange_documents_are_named_and_passed_over(bank):
    some = [
        Arrival("empty", ""),
        Arrival("blank", " \n \n" * 30),
        Arrival("binary", NotText("a program")),
        Arrival("line", UserError("line 3 is no JSON")),
        Arrival("half", "a lone \ud800 surrogate"),
        Arrival("same", "1" * 400),
        Arrival("short", "1 2"),
        *arrivals(["digits"], 10_002),
    ]
    said = grow.grow(bank, some, OPTIONS)
    why = {e["name"]: e["why"] for e in of(said, "skipped")}
    assert why.keys() == {"empty", "blank", "binary", "line", "half", "same"}
    assert why["binary"] == "it is no text" and why["line"] == "line 3 is no JSON"
    assert {e["name"]: e["known"] for e in of(said, "document")} == {
        "short": None,
        "0-digits": True,
    }
    assert [e["event"] for e in grow.grow(bank, some, OPTIONS)] == ["end"]


def test_an_inbox_that_changes_meanwhile_costs_no_document(bank, tmp_path, monkeypatch):
    inbox = tiny_grow.inbox(tmp_path / "inbox", ["digits", "letters", "marks"])
    gone, written, _ = sorted(inbox.iterdir())
    read = grow.read

    def meanwhile(name, text, form):
        if name == written.name:
            monkeypatch.setattr("cr_jax.continual.reading.read_text", writing)
        return read(name, text, form)

    def writing(path):
        monkeypatch.undo()
        monkeypatch.setattr(grow, "read", read)
        text = path.read_text("utf-8")
        path.write_text(text + "more\n", encoding="utf-8")
        return text

    listed = list(tiny_grow.of_folder(inbox))
    held = gone.read_bytes()
    gone.unlink()
    monkeypatch.setattr(grow, "read", meanwhile)
    said = grow.grow(bank, listed, OPTIONS)
    assert [e["name"] for e in of(said, "postponed")] == [gone.name, written.name]
    assert len(of(said, "document")) == 1
    gone.write_bytes(held)
    said = grow.grow(bank, tiny_grow.of_folder(inbox), OPTIONS)
    assert [e["name"] for e in of(said, "document")] == [gone.name, written.name]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(bank, tmp_path):
    before = contents(tmp_path)
    dry = dataclasses.replace(OPTIONS, dry_run=True)
    said = grow.grow(bank, arrivals(STREAM), dry)
    assert contents(tmp_path) == before and not beside(bank).exists()
    assert [e["expert"] for e in of(said, "would")] == ["new-1"] and not of(said, "mounted")
    grow.grow(bank, arrivals(STREAM[:20]), OPTIONS)  # and beside a buffer that is there
    before = contents(tmp_path)
    said = grow.grow(bank, arrivals(STREAM), dry)
    assert contents(tmp_path) == before
    assert len(of(said, "document")) == len(STREAM) - 20 and of(said, "would")


def test_two_growers_of_one_bank_are_refused_and_so_is_the_shipped_bank(bank, tmp_path):
    call = lambda **more: grow.grow(bank, arrivals(["digits"]), OPTIONS, **more)
    with Inside.at(bank) as inside, exclusive(inside, 0.0, "held", GROWING):
        refuses(lambda: call(buffer=tmp_path / "another"), "another process grows the bank")
        assert BankFolder(bank).verify() == []
    assert call()[-1]["documents"] == 1 and not (bank / GROWING).exists()
    with Inside.at(beside(bank)) as inside, exclusive(inside, 0.0, "held"):
        refuses(call, "another process uses the buffer")
    refuses(lambda: grow.grow(cr_jax.bank.pretrained.folder(), [], OPTIONS), "ships with cr_jax")


def test_a_disk_without_locks_leaves_a_bank_that_is_well(bank, tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with Inside.at(bank) as inside, exclusive(inside, 0.0, "held", GROWING):
        assert (bank / GROWING_HELD).exists() and BankFolder(bank).verify() == []
        refuses(lambda: grow.grow(bank, [], OPTIONS), "another process grows the bank")
    (bank / GROWING_HELD).write_text("a killed grower")
    said = []
    delete_bank(bank, said.append)
    assert said == [] and list(tmp_path.iterdir()) == []


def test_a_bank_without_bigram_models_is_refused_before_anything_is_read(tmp_path):
    plain = tiny_bank.on_disk(tmp_path / "plain").folder

    def unread():
        raise AssertionError
        yield

    for dry in (False, True):
        options = dataclasses.replace(OPTIONS, dry_run=dry)
        refuses(functools.partial(grow.grow, plain, unread(), options), "without a bigram model")


def test_a_buffer_belongs_to_its_bank(bank, tmp_path, stored):
    grow.grow(bank, arrivals(["marks"]), OPTIONS)
    place = beside(bank)
    other = tiny_grow.bank(tmp_path / "other", ("marks",))
    refuses(lambda: grow.grow(other, [], OPTIONS, buffer=place), "is of another bank", "digits")
    strange = tiny_bank.on_disk(tmp_path / "strange").folder
    index = json.loads((place / "buffer.json").read_text("utf-8"))
    assert index["tokenizer"] == BankFolder(strange).index["tokenizer"]  # bytes, both
    folder = BankFolder(bank)
    folder.index["tokenizer"] = "another"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grow, "BankFolder", lambda path: folder)
        refuses(lambda: grow.grow(bank, [], OPTIONS), "another tokenizer")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("not a buffer")
    refuses(lambda: grow.grow(bank, [], OPTIONS, buffer=tmp_path / "full"), "is no buffer")
    copy = shutil.copytree(stored, tmp_path / "copy")  # the same experts elsewhere
    assert grow.grow(copy, [], OPTIONS, buffer=place)[-1]["kept"] == 1


@pytest.fixture(scope="module")
def uninterrupted(stored, tmp_path_factory, changes):
    """The bank that grew without a stop, and the place of one change of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_new", tiny_grow.trained)
        folder = tmp_path_factory.mktemp("uninterrupted")
        bank = shutil.copytree(stored, folder / "bank")
        changes.begin(folder)
        grow.grow(bank, arrivals(STREAM), OPTIONS)
        changes.end()
    last = {label: i for i, label in enumerate(changes.labels, 1)}
    return bank, sorted(last.values())


def test_killed_at_any_change_it_goes_on_and_loses_nothing(
    bank, stored, uninterrupted, changes, tmp_path
):
    whole, places = uninterrupted
    before, want, lost = contents(stored), contents(whole), journal(whole)
    assert len(places) > 20

    def kill():
        raise Killed

    def full():
        raise OSError(28, "No space left on device")

    for number, place in enumerate(places[::6]):
        own = shutil.copytree(stored, tmp_path / str(place) / "bank")
        changes.begin(own.parent, place, kill if number % 2 else full)
        try:
            grow.grow(own, arrivals(STREAM), OPTIONS)
        except (Killed, UserError) as stop:
            assert isinstance(stop, Killed) or "No space left on device" in str(stop)
        else:
            assert not number % 2  # of a lock that a full disk keeps, say
        finally:
            changes.end()
        assert set(ExpertBank.load(own).names) <= {*KINDS, "new-1"}  # whole ones, or it raises
        grow.grow(own, arrivals(STREAM), OPTIONS)
        found = check_whole(own, before)
        made = {k: v for k, v in contents(own).items() if k.parts[0] != "aside"}
        assert made == want, changes.labels[place - 1]
        ids = lambda events: [e["ids"] for e in of(events, "found")]
        assert ids(found) == ids(lost)


def test_removing_what_was_mounted_brings_all_routing_back_bit_for_bit(bank):
    usual = {name: {1: (0.1, 9.0, 0.0)} for name in KINDS}
    screen_file.write(bank, Screen({1: 0.5}, usual, 0.05, 0.0, 0.99, 1.0, 1.0, 100))
    fit = CandidateFit(1, 0.5, 0.0, None, 1.0, 1.0, 10)
    cascade_file.write(bank, fit, 0, KINDS, 0.0)
    texts = [one.text for one in arrivals([*KINDS, "marks"] * 3, 30_000)]

    def answers():
        now = ExpertBank.load(bank)
        matrix = cr_jax.residual_matrix(now, texts)
        few = Cascade.load(bank).route(texts[0]) if unused_fits(BankFolder(bank)) is None else None
        return (
            cr_jax.route_many(now, texts),
            cr_jax.route_many(now, texts, exact=True),
            few,
        ), matrix

    (before, first), files = answers(), contents(bank)
    assert {r.decided_by for r in before[0]} == {"bigrams", "experts"} and before[2] is not None
    grow.grow(bank, arrivals(STREAM), OPTIONS)
    grown, _ = answers()
    assert [r.nearest for r in grown[0]] == [*KINDS, "new-1"] * 3 and grown[2] is None
    assert {r.decided_by for r in grown[0]} == {"experts"}
    BankFolder(bank).remove("new-1")
    assert contents(bank) == files and unused_fits(BankFolder(bank)) is None
    after, last = answers()
    assert after == before and np.array_equal(last, first)


def test_an_expert_begins_with_noise_or_with_the_nearest(bank, monkeypatch):
    heard = []

    def hear(path, new, workdir, say):
        heard.append(new)
        tiny_grow.trained(path, new, workdir, say)

    monkeypatch.setattr(training, "train_new", hear)
    noise = dataclasses.replace(OPTIONS, start="noise", dry_run=True)
    assert [e["start"] for e in of(grow.grow(bank, arrivals(STREAM), noise), "would")] == ["noise"]
    near = dataclasses.replace(OPTIONS, start="nearest", name="signs")
    said = grow.grow(bank, arrivals(STREAM), near)
    (domain,) = of(said, "found")
    assert heard[0].start == domain["start"] in KINDS and list(heard[0].train) == ["signs"]
    assert heard[0].steps == OPTIONS.steps


def test_a_name_of_full_length_leaves_room_for_the_number_of_the_next(bank):
    long = "n" * 100
    with opened(beside(bank), BankFolder(bank)) as buffer:
        some = grow.Grower(bank, buffer, OPTIONS, print)
        assert some._free(long) == long
        some.history.experts |= {long, "n" * 98 + "-2"}
        assert some._free(long) == check_name("n" * 98 + "-3")
        assert some._free("") == "new-1"


def test_tokens_that_fill_no_few_windows_are_refused(bank):
    few = dataclasses.replace(OPTIONS, tokens=4 * tiny_grow.MODEL.window - 1)
    refuses(lambda: grow.grow(bank, [], few), "tokens=47", "48, 4 windows")
    grow.grow(bank, [], dataclasses.replace(OPTIONS, tokens=4 * tiny_grow.MODEL.window))


def test_what_is_refused_as_known_leaves_room_for_the_next_look(bank):
    with opened(beside(bank), BankFolder(bank)) as buffer:
        some = grow.Grower(bank, buffer, OPTIONS, print)
        some._looked = 5000
        near = grow.search.Nearness("digits", 0.05, 0.05)
        some._found(grow.search.Domain((), 4000, 0.2, near, "digits"))
        assert some._looked == 0 and some.said[-1]["verdict"] == "refuse"


def test_an_alarm_has_time_for_as_much_text_as_comes_after_it(bank, monkeypatch):
    tokens = lambda said: sum(e["tokens"] for e in of(said, "document") if e["known"] is False)
    monkeypatch.setattr(grow.search, "domains", lambda *_: [])
    few = dataclasses.replace(OPTIONS, tokens=550)
    first = grow.grow(bank, arrivals(STREAM), few)
    (alarm,) = of(first, "alarm")
    before = tokens(first[: first.index(alarm)])
    since = tokens(first) - before
    assert of(first, "waiting") and since < 4 * 550 < before + since
    later = grow.grow(bank, arrivals(["marks"] * 12, 30_000), few)
    over = later[: later.index(of(later, "unfounded")[0])]
    assert since + tokens(over) >= 4 * 550


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"run_length": 0.5}, "run length"),
        ({"run_length": float("nan")}, "run length"),
        ({"tokens": 0}, "tokens must be"),
        ({"steps": -1}, "steps 0"),
        ({"name": "a b"}, "a b"),
    ],
)
def test_bad_options_are_one_line(wrong, said):
    refuses(functools.partial(GrowOptions, **wrong), said)


def test_a_bank_without_experts_or_a_damaged_buffer_is_one_line(bank, tmp_path):
    empty = ExpertBank.create(tmp_path / "empty", tiny_grow.MODEL, tiny_grow.BYTES).folder
    refuses(lambda: grow.grow(empty, [], OPTIONS), "no expert to route by")
    grow.grow(bank, arrivals(["marks", "digits"]), OPTIONS)
    path = beside(bank) / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0][:-20] + b"\n" + lines[1])
    refuses(lambda: grow.grow(bank, [], OPTIONS), "journal.jsonl", "line 1 is damaged")
    path.write_bytes(lines[0] + b'{"event": "mounted"}\n' + lines[1])
    refuses(lambda: grow.grow(bank, [], OPTIONS), "journal.jsonl", "line 2 is damaged")
    path.write_bytes(lines[0] + lines[1][:-9])  # what a kill leaves: read again
    said = grow.grow(bank, arrivals(["marks", "digits"]), OPTIONS)
    assert [e["name"] for e in of(said, "document")] == ["1-digits"]
    assert path.read_bytes().startswith(lines[0]) and os.path.getsize(path) > len(lines[0])
