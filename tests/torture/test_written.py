"""Files of others: what is read is what was written, or it is refused; a loss would be noticed."""

import pytest

from benchmarks.torture import fuzz, written
from benchmarks.torture.probes import answer
from cr_jax.data import records, sources


def outcomes(probes, folder):
    """Whether each probe was refused; what was wrong with any."""
    statuses, wrong = set(), []
    for number, probe in enumerate(probes):
        place = folder / str(number)
        place.mkdir()
        status, said = answer(probe, place)
        statuses.add(status)
        wrong += said
    return statuses, wrong


def drawn(strategy, count=40):
    probes = []
    fuzz._generate(strategy, count, 0, probes.append)
    return probes


def test_texts_in_every_encoding(tmp_path):
    assert outcomes(drawn(written.encoded()), tmp_path) == ({0, 2}, [])


def test_what_bytes_are_as_a_text():
    for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert written.text_of("é中".encode(codec)).endswith("é中")
    for data in (b"", b"a\0", b"\xe9", "é".encode("utf-16-le"), b"\xff\xfea"):
        assert not written.text_of(data)


def test_line_ends_and_normal_forms(tmp_path):
    assert outcomes(drawn(written.line_ends()), tmp_path) == ({0}, [])


def test_changed_archives(tmp_path):
    assert outcomes(drawn(written.changed_archives()), tmp_path) == ({0, 2}, [])


@pytest.mark.parametrize("name", sorted(written.packed()))
def test_an_archive_cut_at_every_byte(tmp_path, name):
    probes = [p for p in written.cut_archives() if p.what.startswith(name)]
    data, ends = written.packed()[name]
    assert len(probes) == len(data)
    statuses, wrong = outcomes(probes, tmp_path)
    assert wrong == [] and 2 in statuses
    assert (0 in statuses) == (len(ends) > 1)  # a whole archive of fewer records is one


def test_a_loss_without_a_word_is_noticed(tmp_path, monkeypatch):
    cut = next(p for p in written.cut_archives() if p.what == "one.jsonl.gz cut at 60")
    whole = records.json_lines
    monkeypatch.setattr(sources.records, "json_lines", lambda *a: iter([(1, {"text": "lost"})]))
    (tmp_path / "a").mkdir()
    assert answer(cut, tmp_path / "a")[1]
    monkeypatch.setattr(sources.records, "json_lines", whole)
    (tmp_path / "b").mkdir()
    assert answer(cut, tmp_path / "b") == (2, [])
    monkeypatch.setattr(written, "text_form", lambda text: text)
    assert outcomes(drawn(written.line_ends()), tmp_path)[1]
