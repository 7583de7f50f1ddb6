"""Which files a source names: pipes and devices do not stop it, links are followed once."""

import os
import socket

import pytest

from cr_jax.data import finding
from cr_jax.data.corpus import load_corpus
from cr_jax.data.finding import LeftOut, files_of
from cr_jax.data.sources import documents
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@pytest.fixture
def top(tmp_path, monkeypatch):
    """top/{1.txt,in/2.txt} beside real/{3.txt,deep/4.txt}."""
    monkeypatch.chdir(tmp_path)
    for name in ("top/1.txt", "top/in/2.txt", "real/3.txt", "real/deep/4.txt", "top/.git/5.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "top"


def names(pattern):
    """The names of a source; of a folder also by patterns, which must find the same."""
    found = sorted(d.name for d in documents(f"files:{pattern}"))
    if os.path.isdir(pattern):
        for more in ("/**/*", "/**", "/**/**/*.txt", "/./**/*.t[xy]t"):
            assert sorted(d.name for d in documents(f"files:{pattern}{more}")) == found, more
    return found


def refused(call, *words):
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_a_folder_and_patterns_find_the_same(top):
    assert names("top") == ["1.txt", "in/2.txt"]
    assert names("top/*") == ["1.txt"] and names("t*/*/2.*") == ["top/in/2.txt"]
    assert names("**/4.txt") == ["real/deep/4.txt"] and names("top/.git/*") == ["5.txt"]
    assert names("top/**/2.txt") == ["in/2.txt"] and names("*/**/[!12].txt") == [
        "real/3.txt",
        "real/deep/4.txt",
    ]


def test_linked_folders_are_followed(top):
    (top / "more").symlink_to("../real")
    assert names("top") == ["1.txt", "in/2.txt", "more/3.txt", "more/deep/4.txt"]
    assert names("top/m*/*.txt") == ["more/3.txt"] and names("top/more/deep") == ["4.txt"]


def test_links_back_up_make_no_loop(top):
    """Two of them: a reader that goes round would see 2**40 folders."""
    for i in range(2):
        (top / f"loop{i}").symlink_to(".")
        (top / "in" / f"up{i}").symlink_to("../..")
    (top / "self").symlink_to("self")
    assert names("top") == ["1.txt", "in/2.txt", "in/up0/real/3.txt", "in/up0/real/deep/4.txt"]


@pytest.mark.parametrize("order", ["az", "za"])
def test_a_file_with_two_names_is_one_document_by_its_own_name(top, order):
    """Else it could stand in train by one name and in test by the other."""
    own, link = (top / name for name in order)
    own.mkdir()
    (own / "6.txt").write_text("six")
    link.symlink_to(own.name)
    (top / "0.txt").symlink_to("1.txt")
    (top / "in" / "same").symlink_to("../../top")
    assert names("top") == sorted(["1.txt", "in/2.txt", f"{own.name}/6.txt"])
    assert names("top/*/6.txt") == [f"{own.name}/6.txt"]
    assert names("top/[01].txt") == ["1.txt"]
    (top / "outside.txt").symlink_to("../real/3.txt")
    assert "outside.txt" in names("top")


def test_what_is_no_file_is_left_out_and_counted(top):
    os.mkfifo(top / "pipe")
    os.mkfifo(top / "in" / "pipe.txt")
    (top / "null").symlink_to("/dev/null")
    (top / "gone").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("top/socket")
        for pattern in ("top", "top/**/*"):
            left_out = LeftOut()
            assert [name for _, name in files_of(pattern, left_out)] == ["1.txt", "in/2.txt"]
            assert left_out.counts == {"pipe": 2, "device": 1, "link to nothing": 1, "socket": 1}
            assert left_out.line.startswith(
                "left out 1 device, 1 link to nothing, 2 pipes, 1 socket ("
            )
            assert left_out.line.endswith(", ...)")
        assert names("top") == ["1.txt", "in/2.txt"]


@pytest.mark.parametrize("kind", ["files", "jsonl"])
def test_what_is_named_and_is_no_file_is_refused(top, kind):
    os.mkfifo("pipe")
    for path, word in (("pipe", "pipe"), ("/dev/null", "device")):
        refused(lambda path=path: list(documents(f"{kind}:{path}")), path, word, "cannot be read")
    os.mkdir("empty")
    os.mkfifo("empty/pipe")
    refused(lambda: list(documents(f"{kind}:empty/*")), "empty/*", "left out 1 pipe (pipe)")


def test_a_folder_of_json_lines_must_name_its_files(top):
    refused(lambda: list(documents("jsonl:top")), "top is a folder", "top/*")


def test_a_folder_that_cannot_be_read_is_not_passed_over(top, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("in"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(finding.os, "scandir", closed)
    for pattern in ("top", "top/**/*.txt"):
        refused(
            lambda pattern=pattern: list(documents(f"files:{pattern}")),
            "top/in",
            "Permission denied",
        )


def test_files_that_are_not_text_are_left_out_and_counted(top, tmp_path):
    (top / "a.png").write_bytes(PNG)
    (top / "b.gz").write_bytes(b"\x1f\x8b\x08\0")
    (top / "\n.bin").write_bytes(b"\0")
    assert names("top/**/*.*") == ["1.txt", "in/2.txt"]
    for _ in range(2):  # also from the cache
        found = load_corpus(["files:top"], ByteTokenizer(), tmp_path / "cache")
        assert found.names == ["1.txt", "in/2.txt"]
        assert found.left_out == "left out 3 files that are not text ('\\n.bin', a.png, b.gz)"
    assert load_corpus(["files:top/*.txt"], ByteTokenizer(), tmp_path / "cache").left_out == ""
    # Text in another encoding is text: losing it is not what was asked for.
    (top / "latin.txt").write_bytes("Caf\u00e9".encode("latin-1"))
    refused(lambda: list(documents("files:top")), "latin.txt", "not UTF-8")


def test_files_none_of_which_is_text_are_refused(top):
    (top / "a.png").write_bytes(PNG)
    refused(lambda: list(documents("files:top/a.png")), "a.png is not a text file", "PNG image")
    (top / "b.png").write_bytes(PNG)
    refused(lambda: list(documents("files:top/*.png")), "none of its 2 files is text", "a.png")
    assert names("top/*") == ["1.txt"]
