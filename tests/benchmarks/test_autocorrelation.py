"""What is known of a series comes out of its measurement."""

import json

import numpy as np
import pytest
import tiny_bank

from benchmarks import autocorrelation


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_a_known_correlation_is_found(rho):
    random = np.random.default_rng(0)
    found = []
    for _ in range(30):
        noise = random.normal(0, 1, 600)
        series = np.zeros(600)
        for i in range(1, 600):
            series[i] = rho * series[i - 1] + noise[i]
        found.append(autocorrelation.measured(np.stack([np.zeros(600), series + 50])))
    correlation = np.mean([x["correlation"] for x in found], 0)
    np.testing.assert_allclose(correlation, rho ** np.array(autocorrelation.LAGS), atol=0.06)
    variance = np.mean([x["variance"] for x in found], 0)
    assert variance[2] == pytest.approx((1 + rho) / (1 - rho), rel=0.15)


def test_the_program_reads_long_documents_alone(tmp_path, capsys):
    tiny_bank.on_disk(tmp_path / "bank")
    lines = [json.dumps({"text": "abcdefghij" * n}) for n in (3, 400)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    words = [f"x=jsonl:{tmp_path / 'a.jsonl'}", "--bank", str(tmp_path / "bank"), "--windows", "80"]
    assert autocorrelation.main([*words, "--out", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["sources"]["x"]["documents"] == 1
    words[0] = "x=jsonl:nowhere"
    assert autocorrelation.main([*words, "--out", str(tmp_path / "out.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
