"""Known documents rarely alarm, strange ones soon, and what alarms never counts in full."""

import argparse

import numpy as np
import pytest

from benchmarks.continual import detection
from benchmarks.continual.detection import Judged, check, false_alarms, measured, until_alarm
from cr_jax.bank import pretrained
from cr_jax.errors import UserError

BEHIND = {"e0": 100, "e1": 100}


def documents(p):
    return [Judged(f"e{i % 2}", float(x)) for i, x in enumerate(p)]


def uniform(count, seed=0):
    return documents(np.random.default_rng(seed).integers(1, 102, count) / 101)


def test_new_text_is_heard_soon_and_usual_text_is_not():
    known = uniform(400)
    strange = documents(np.full(40, 1 / 101))
    counts = [until_alarm(known, strange, BEHIND, 1000, seed) for seed in range(10)]
    assert max(counts) <= 10
    usual = [until_alarm(known, uniform(40, 1), BEHIND, 1000, seed) for seed in range(10)]
    assert np.mean(usual) > 30  # all 40, where nothing alarms


def test_false_alarms_are_as_rare_as_the_run_length_says():
    known = uniform(400)
    assert false_alarms(known, BEHIND, 50, 3000) <= 3000 / 50
    assert false_alarms(known, BEHIND, 5, 3000) > false_alarms(known, BEHIND, 50, 3000)


def test_a_domain_without_an_alarm_counts_with_all_its_documents():
    a = argparse.Namespace(run_length=1e9, orders=2, most=10)
    found = measured(uniform(60), {"like": uniform(12, 3)}, BEHIND, a)
    assert found["by_domain"]["like"] == {"mean": 12.0, "most": 12} and found["false_alarms"] == 0
    assert found["run_length"] == 10 and found["wanted_run_length"] == 1e9


def refused(run, says):
    with pytest.raises(UserError, match=says) as error:
        run()
    assert "\n" not in str(error.value)


def test_what_cannot_be_measured_is_refused_before():
    a = lambda **of: argparse.Namespace(**{"run_length": 9.0, "orders": 2, "most": 10} | of)
    check(a(), ["x"], ["x", "y"])
    refused(lambda: check(a(), ["x", "z"], ["x", "y"]), "no domain 'z'.*an expert of")
    refused(lambda: check(a(), ["x", "y"], ["x", "y"]), "knows every domain: .* --unseen")
    for flag, value in (("orders", 0), ("most", 0), ("most", -3)):
        refused(lambda of={flag: value}: check(a(**of), ["x"], ["x", "y"]), f"--{flag} must be")
    refused(lambda: check(a(run_length=float("nan")), ["x"], ["x", "y"]), "run length")


def test_too_few_documents_are_refused():
    a = argparse.Namespace(run_length=9.0, orders=2, most=10)
    for count in (0, 1, 40):
        refused(lambda n=count: measured(uniform(n), {"y": uniform(3)}, BEHIND, a), f"{count} doc")
    assert measured(uniform(41), {"y": uniform(3)}, BEHIND, a)["documents"] <= 3
    refused(lambda: measured(uniform(60), {"y": []}, BEHIND, a), "a document of 'y'")


def test_what_is_written_already_must_be_an_object(tmp_path):
    out = tmp_path / "out.json"
    assert detection.written(str(out)) == {}
    out.write_text('{"a": 1}')
    assert detection.written(str(out)) == {"a": 1}
    for text, says in (
        ("[1]", "no JSON object"),
        ("{", "is no JSON"),
        ("[" * 99_999, "is no JSON"),
    ):
        out.write_text(text)
        refused(lambda: detection.written(str(out)), says)
    refused(lambda: detection.written(str(tmp_path)), "cannot be read")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_command_says_it_in_a_line(tmp_path, capsys):
    """A config of other domains than the bank's."""
    config = tmp_path / "c.py"
    config.write_text(
        "from cr_jax.config import default, domain\n\n\ndef get_config():\n    c = default()\n"
        "    c.train.steps = 1\n"
        "    c.data.domains.nowhere = domain(['a/*'], ['a/*'], ['a/*'])\n    return c\n"
    )
    words = ["--config", str(config), "--bank", str(pretrained.folder()), "--out"]
    assert detection.main([*words, str(tmp_path / "o.json")]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and "the config has no domain" in said
    assert not (tmp_path / "o.json").exists()
