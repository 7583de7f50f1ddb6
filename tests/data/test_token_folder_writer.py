"""Writing a token folder: the same bytes however it was written, and nothing half-written."""

import resource
import shutil

import pytest
import tiny_tokens

from cr_jax import config as settings
from cr_jax.data import corpus_draft, encoding, experiment_text, token_folder_writer
from cr_jax.data.corpus_draft import Draft, locked_folder
from cr_jax.errors import UserError


@pytest.fixture
def place(tmp_path):
    tiny_tokens.write_text(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    tiny_tokens.write_text(folder)
    return tiny_tokens.contents(tiny_tokens.write_tokens(folder, jobs=1))


def without_keys(contents):
    """The ids and starts: the keys of corpora hold the place of the text."""
    return sorted(data for name, data in contents.items() if name.endswith(".npy"))


def test_any_number_of_processes_gives_the_same_bytes(place, monkeypatch, expected):
    monkeypatch.setattr(encoding, "ALONE", 0)
    one = tiny_tokens.contents(tiny_tokens.write_tokens(place, jobs=1))
    shutil.rmtree(place / "tokens")
    assert tiny_tokens.contents(tiny_tokens.write_tokens(place, jobs=3)) == one
    assert without_keys(one) == without_keys(expected) and len(one) == 7 * 3 + 2
    assert {p.name for p in place.iterdir()} == {"text", "tokens"}


def test_what_cannot_work_is_told_before_text_is_read(place, monkeypatch):
    """A source that is missing, the last one of all, and a vocabulary without all ids."""
    monkeypatch.setattr(token_folder_writer, "tokenised", lambda *_: pytest.fail("text was read"))
    small = tiny_tokens.config(place)
    small.model.vocab_size = 100
    with pytest.raises(UserError, match="vocab_size=100"):
        token_folder_writer.write(settings.build(small.to_dict()), place / "tokens")
    small.tokenizer.kind = "sentencepiece"
    monkeypatch.setattr(experiment_text, "documents", lambda *_: pytest.fail("text was read"))
    with pytest.raises(UserError, match="vocab_size=100"):
        token_folder_writer.write(settings.build(small.to_dict()), place / "tokens")
    (place / "text" / "marks-test.txt").unlink()
    with pytest.raises(UserError, match="marks-test"):
        tiny_tokens.write_tokens(place)
    assert [p.name for p in place.iterdir()] == ["text"]


class Stop(BaseException):
    pass


def stop_at(monkeypatch, chunk: int, error: BaseException):
    """The first write that gets so far raises `error`; -> the chunks that were added."""
    add, added = Draft.add, []

    def count(self, part):
        added.append(part)
        if len(added) == chunk:
            raise error
        add(self, part)

    monkeypatch.setattr(Draft, "add", count)
    return added


@pytest.mark.parametrize("compress", [False, True])
def test_a_stop_in_the_middle_changes_nothing(place, monkeypatch, compress):
    whole = tiny_tokens.contents(tiny_tokens.write_tokens(place, compress=compress))
    shutil.rmtree(place / "tokens")
    stop_at(monkeypatch, 4, Stop())
    with pytest.raises(Stop):
        tiny_tokens.write_tokens(place, compress=compress)
    assert {p.name for p in place.iterdir()} == {"text", ".tokens.making"}
    found = tiny_tokens.contents(tiny_tokens.write_tokens(place, compress=compress))
    assert found == whole
    assert {p.name for p in place.iterdir()} == {"text", "tokens"}


def test_what_is_finished_is_not_encoded_again(place, monkeypatch):
    added = stop_at(monkeypatch, -1, Stop())
    tiny_tokens.write_tokens(place)
    whole, names = len(added), [n for part in added for n in part.names]
    shutil.rmtree(place / "tokens")
    monkeypatch.undo()
    first = stop_at(monkeypatch, 5, Stop())
    with pytest.raises(Stop):
        tiny_tokens.write_tokens(place)
    done = [n for part in first[:4] for n in part.names]
    del first[:]
    tiny_tokens.write_tokens(place)
    assert whole == 7 and len(first) == 3
    assert done + [n for part in first for n in part.names] == names


def test_a_stop_between_writing_and_renaming_changes_nothing(place, monkeypatch):
    tiny_tokens.write_tokens(place)
    whole = tiny_tokens.contents(place / "tokens")
    shutil.rmtree(place / "tokens")

    seal = token_folder_writer.write_sealed

    def stop(path, value):
        if path.name == "tokens.json":
            raise Stop
        seal(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(token_folder_writer, "write_sealed", stop)
        with pytest.raises(Stop):
            tiny_tokens.write_tokens(place)
    (place / ".tokens.making" / ".tokens.json.123").write_text("half")
    (place / ".tokens.making" / "tokenizer" / ".tokenizer.json.123").write_text("half")
    tiny_tokens.write_tokens(place)
    assert tiny_tokens.contents(place / "tokens") == whole
    shutil.rmtree(place / "tokens")

    with monkeypatch.context() as patch:
        patch.setattr(token_folder_writer.os, "replace", _unless(place / "tokens"))
        with pytest.raises(Stop):
            tiny_tokens.write_tokens(place)
    assert not (place / "tokens").exists()
    tiny_tokens.write_tokens(place)
    assert tiny_tokens.contents(place / "tokens") == whole


def _unless(path):
    replace = token_folder_writer.os.replace

    def call(source, target):
        if target == path:
            raise Stop
        replace(source, target)

    return call


def test_a_full_disk_is_one_line_and_the_same_call_goes_on(place, expected):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(UserError, match="cannot write") as caught:
            tiny_tokens.write_tokens(place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and not (place / "tokens").exists()
    tiny_tokens.write_tokens(place)
    assert without_keys(tiny_tokens.contents(place / "tokens")) == without_keys(expected)


def test_what_is_there_is_left_alone(place):
    lines = []
    out = tiny_tokens.write_tokens(place)
    before = tiny_tokens.contents(out)
    tiny_tokens.write_tokens(place, say=lines.append)
    assert len(lines) == 1 and "already holds these tokens" in lines[0]
    for path in out.rglob("starts.npy"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"starts\.npy was changed or cut"):
        tiny_tokens.write_tokens(place)
    for name, data in before.items():
        (out / name).write_bytes(data)
    with pytest.raises(UserError, match="up to 50 tokens"):
        token_folder_writer.write(tiny_tokens.experiment(place, max_train_tokens=50), out)
    for name in ("folder", "file", "link"):
        path = place / name
        if name == "folder":
            path.mkdir()
        elif name == "file":
            path.write_text("mine")
        else:
            path.symlink_to(place / "nowhere")
        with pytest.raises(UserError, match="is there and is no token folder"):
            token_folder_writer.write(tiny_tokens.experiment(place), path)
    with pytest.raises(UserError, match="has no name"):
        token_folder_writer.write(tiny_tokens.experiment(place), "")
    assert tiny_tokens.contents(out) == before and (place / "file").read_text() == "mine"


def test_one_process_writes_at_a_time(place):
    with locked_folder(place / ".tokens.making"), pytest.raises(UserError, match="another process"):
        tiny_tokens.write_tokens(place)


def test_what_is_in_the_way_is_not_deleted(place):
    (place / ".tokens.making").mkdir()
    (place / ".tokens.making" / "mine").write_text("keep")
    with pytest.raises(UserError, match="is in the way"):
        tiny_tokens.write_tokens(place)
    assert (place / ".tokens.making" / "mine").read_text() == "keep"


def trained(place, **change):
    raw = tiny_tokens.config(place).to_dict()
    raw["tokenizer"] |= {"kind": "sentencepiece", "vocab_size": 300}
    return settings.build({**raw, **change})


def test_a_tokenizer_that_was_trained_for_something_else_is_not_gone_on_with(place, monkeypatch):
    write = lambda **change: token_folder_writer.write(trained(place, **change), place / "tokens")
    with monkeypatch.context() as patch:
        stop_at(patch, 2, Stop())
        with pytest.raises(Stop):
            write()
    assert (place / ".tokens.making" / "tokenizer" / "sentencepiece.model").exists()
    with pytest.raises(UserError, match="was begun with another tokenizer or text"):
        write(seed=1)
    text = place / "text" / "digits-train.txt"
    old = text.read_text()
    text.write_text(old + "9")
    with pytest.raises(UserError, match="was begun with another tokenizer or text"):
        write()
    text.write_text(old)
    assert write().tokenizer(trained(place)).kind == "sentencepiece"


def test_bad_text_leaves_what_is_finished_or_nothing(place):
    (place / "text" / "digits-train.txt").write_bytes(b"\0")
    with pytest.raises(UserError, match=r"digits-train\.txt"):
        tiny_tokens.write_tokens(place)
    assert {p.name for p in place.iterdir()} == {"text"}
    (place / "text" / "digits-train.txt").write_text("good")
    (place / "text" / "marks-test.txt").write_bytes(b"\0")
    with pytest.raises(UserError, match=r"marks-test\.txt"):
        tiny_tokens.write_tokens(place)
    (place / "text" / "marks-test.txt").write_text("good")
    (place / "text" / "digits-train.txt").write_text("other")  # what it was is not in the folder
    found = tiny_tokens.write_tokens(place)
    assert len(list((found / "corpora").iterdir())) == 7
    assert not list(found.rglob("journal*")) and corpus_draft.FILES[0] == "tokens.npy"
