"""Every study that a run can make, on one tiny run of three domains."""

import json

import pytest
import tiny_run

from cr_jax import config as settings
from cr_jax.errors import UserError
from cr_jax.experiment import run
from cr_jax.report import render
from cr_jax.studies import registry, segments
from cr_jax.studies.interface import Section, Study

NAMES = (*tiny_run.NAMES, "marks")
OTHER_RUNS = ("nested_latents", "modular")  # studies that want other models than this run trains


def three_domains(folder):
    config = tiny_run.config(folder)
    config.data.domains.marks = settings.domain(
        *(f"files:{folder}/marks-{split}.txt" for split in ("train", "valid", "test"))
    )
    config.data.unseen = {}
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    tiny_run.write(folder, NAMES)
    config = three_domains(folder)
    config.eval.calibration_windows = 60  # of all three: enough for one false alarm in a hundred
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "TEXTS", 2)  # tests/studies/test_segments.py has more
        patch.setitem(registry.STUDIES, "clash", Study("clash", lambda c: {"routing": {}}))
        config.studies = tuple(n for n in registry.STUDIES if n not in OTHER_RUNS)
        return run.run(settings.build(config), folder / "run"), folder


def test_all_studies_are_made_and_shown(finished):
    report, folder = finished
    found = report["sections"]
    own = {"fingerprint", "routing", "geometry", *OTHER_RUNS}
    assert found.keys() == registry.STUDIES.keys() - own | {"clash"}
    assert [name for name, of in found.items() if "left_out" in of] == ["clash"]
    for name, of in found.items():
        if name != "clash":
            assert of["rows"] and {len(row) for row in of["rows"]} == {len(of["head"])}
    stored = json.loads((folder / "run" / "report.json").read_text())
    page = (folder / "run" / "report.html").read_text()
    for name, of in stored["sections"].items():
        assert f'<section id="study-{name}">' in page and f"<h2>{of['title']}</h2>" in page


def test_studies_find_in_three_easy_domains_what_they_claim(finished):
    report, _ = finished
    accuracy = report["lengths"]["accuracy"]
    assert list(accuracy) == ["12"]  # the window is shorter than every usual length
    assert accuracy["12"] == pytest.approx(report["routing"]["accuracy"], abs=0.05)
    assert report["baselines"]["ngram"]["12"] > 0.9 > report["baselines"]["chance"]["12"]
    for curve in report["blends"]["layouts"].values():
        assert curve["won_a"][0] < 0.1 and curve["won_a"][-1] > 0.9
    for name in NAMES:
        rows = {row["scheme"]: row["tra"] for row in report["bits"][name]["rows"]}
        assert rows["int2"] < rows["int8"] <= rows["float32"] + 0.02
    rules = report["unknown_rules"]["scores"]
    assert rules["novelty_score"]["auroc"] > 0.9
    offsets = report["offsets"]["accuracy"]["valid"]
    assert offsets["with"] >= offsets["without"]


def test_a_study_that_takes_another_s_key_changes_nothing(finished):
    report, _ = finished
    assert report["routing"]["windows"] > 0
    assert "routing" in report["sections"]["clash"]["left_out"]


@pytest.mark.parametrize(
    ("studies", "words"),
    [
        (("colours",), ["unknown study 'colours'", "fingerprint", "lengths"]),
        (("unknown_rules",), ["needs 3 or more", "there are 2"]),
    ],
)
def test_a_study_that_cannot_be_made_is_refused_before_text_is_read(tmp_path, studies, words):
    config = tiny_run.config(tmp_path)  # whose text files do not exist
    config.studies = studies
    with pytest.raises(UserError) as caught:
        run.run(settings.build(config), tmp_path / "run")
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "run").exists()


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "STUDIES", dict(registry.STUDIES))
    made = registry.register(Study("toy", lambda context: {"toy": 1}))
    assert registry.STUDIES["toy"] is made
    for name in ("toy", "routing", "two words"):
        with pytest.raises(UserError, match="cannot be named"):
            registry.register(Study(name, lambda context: {}))


def test_the_page_shows_hostile_tables_as_text():
    hostile = "<script>alert(1)</script>"
    section = Section(hostile, (hostile,), [(hostile, "too", "long"), ()], hostile, hostile)
    page = render({"sections": {'x"><b>': vars(section), "odd": {"head": 3, "rows": None}}})
    assert "<script>" not in page and "<b>x" not in page and "&lt;script&gt;" in page


def test_the_page_draws_how_texts_are_cut(finished):
    report, folder = finished
    found = json.loads((folder / "run" / "report.json").read_text())["segments"]
    assert found["document"]["text"] and len(found["document"]["spans"]) > 1
    page = (folder / "run" / "report.html").read_text()
    section = page.split('<section id="study-segments">')[1].split("</section>")[0]
    assert "Switches found" in section and "Around a switch" in section
    assert section.count('class="band"') == len(found["document"]["spans"])
    assert ".track .band" in page
    without = render({k: v for k, v in report.items() if k != "segments"})
    assert "Switches found" not in without and 'class="band"' not in without
