"""The fast lane leaves out what exists, and no package as a whole."""

import pathlib

import lanes

TESTS = pathlib.Path(__file__).resolve().parent


def test_what_is_slow_is_there():
    assert [place for place in lanes.SLOW if not (TESTS / place).is_file()] == []
    for place, names in lanes.SLOW_TESTS.items():
        text = (TESTS / place).read_text(encoding="utf-8")
        assert [name for name in names if f"\ndef {name}(" not in text] == []
        assert place not in lanes.SLOW


def test_every_folder_of_tests_keeps_a_file_in_the_fast_lane():
    files = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    folders = {file.rpartition("/")[0].split("/")[0] for file in files}
    kept = {file.rpartition("/")[0].split("/")[0] for file in files - {*lanes.SLOW}}
    assert folders == kept


def test_the_marker_follows_the_list(request):
    slow = {
        item.path.relative_to(TESTS).as_posix()
        for item in request.session.items
        if item.get_closest_marker("slow")
    }
    here = {item.path.relative_to(TESTS).as_posix() for item in request.session.items}
    assert {*lanes.SLOW} & here <= slow and "test_lanes.py" not in slow
    for item in request.session.items:
        names = lanes.SLOW_TESTS.get(item.path.relative_to(TESTS).as_posix(), ())
        assert item.originalname not in names or item.get_closest_marker("slow")
