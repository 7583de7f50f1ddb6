"""Finished studies lie in the workdir: a run that goes on makes only the others."""

import json

import pytest
import tiny_run

from cr_jax import config as settings
from cr_jax.experiment import run
from cr_jax.studies import registry
from cr_jax.studies.interface import Section, Study


@pytest.fixture
def made(monkeypatch):
    """Names of the studies of this file that were made, in order; each counts its calls."""
    calls = []
    monkeypatch.setattr(registry, "STUDIES", dict(registry.STUDIES))

    def study(name, fails=None):
        def made_of(context):
            if fails and fails.pop():
                raise KeyboardInterrupt
            calls.append(name)
            return {name: {"call": len(calls), "share": float("nan"), "by": {1: (0.5,)}}}

        section = lambda report: Section(name, ("call",), [(str(report[name]["call"]),)], "", "")
        registry.register(Study(name, made_of, section))

    study("first")
    study("second", [False, True])
    study("third")
    return calls


def experiment(folder, studies, **changes):
    config = tiny_run.config(folder)
    config.studies = studies
    config.update_from_flattened_dict(changes)
    return settings.build(config)


@pytest.fixture
def folder(tmp_path):
    tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))
    return tmp_path


def test_a_run_that_was_stopped_in_a_study_makes_those_before_it_once(folder, made):
    tried = experiment(folder, ("first", "second", "third"))
    with pytest.raises(KeyboardInterrupt):
        run.run(tried, folder / "run")
    assert made == ["first"] and not (folder / "run" / "report.json").exists()
    report = run.run(tried, folder / "run")
    assert made == ["first", "second", "third"]
    assert [report[name]["call"] for name in made] == [1, 2, 3]


def test_a_kept_study_stands_in_the_report_as_a_fresh_one(folder, made):
    registry.STUDIES["second"] = registry.STUDIES["third"]
    of = lambda *names: ("fingerprint", "routing", "geometry", *names)
    run.run(experiment(folder, of("first")), folder / "run")
    stored = lambda: json.loads((folder / "run" / "report.json").read_text())
    before, page = stored(), (folder / "run" / "report.html").read_text()
    run.run(experiment(folder, of("first", "third")), folder / "run")
    after = stored()
    assert made == ["first", "third"] and after.pop("third") and after["sections"].pop("third")
    for report in (before, after):
        report["provenance"]["config"].pop("studies")
        del report["seconds"], report["training"]
    assert before == after
    assert page.split('id="study-first"')[1][:200] in (folder / "run" / "report.html").read_text()


@pytest.mark.parametrize("harm", ["settings", "flipped", "link"])
def test_a_study_is_made_anew_where_it_may_not_be_the_same(folder, made, harm):
    run.run(experiment(folder, ("first",)), folder / "run")
    file = folder / "run" / "studies" / "first.json"
    changes = {}
    if harm == "settings":
        changes = {"eval.alpha": 0.2}
    elif harm == "flipped":
        file.write_text(file.read_text().replace('"call": 1', '"call": 7'))
    else:
        file.rename(folder / "elsewhere.json")
        file.symlink_to(folder / "elsewhere.json")
    report = run.run(experiment(folder, ("first",), **changes), folder / "run")
    assert made == ["first", "first"] and report["first"]["call"] == 2
    assert not file.is_symlink()


def test_a_study_of_another_code_is_made_anew(folder, made, monkeypatch, tmp_path):
    source = tmp_path / "own.py"

    def own(text):
        source.write_text(text)
        names = {}
        exec(compile(text, str(source), "exec"), names)
        registry.STUDIES["own"] = Study("own", names["run"])
        return run.run(experiment(folder, ("own",)), folder / "run")["own"]

    assert own("run = lambda context: {'own': 1}") == 1
    assert own("run = lambda context: {'own': 2}") == 2
