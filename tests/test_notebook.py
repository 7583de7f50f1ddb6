"""The notebook runs from top to bottom, on a grid that it trains itself and on the stored one."""

import json
import os
from pathlib import Path

import jax
import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "colabs" / "latent_length_ablation.ipynb"


def _run(monkeypatch, tmp_path, **environment) -> tuple[str, int]:
    """Executes a copy in memory: (all printed text, number of pictures)."""
    for name, value in {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "IPYTHONDIR": str(tmp_path),
        **environment,
    }.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return (
        "".join(out.get("text", "") for out in outputs),
        sum("image/png" in out.get("data", {}) for out in outputs),
    )


@pytest.mark.filterwarnings("ignore")  # of the notebook client, not of the project
def test_it_trains_the_tiny_grid_and_says_that_it_is_too_small_for_a_law(monkeypatch, tmp_path):
    # Compilation is most of the time; the kernel does without LLVM's passes, as all tests do, and
    # keeps its programs where they keep theirs.
    (tmp_path / "run" / "cache").mkdir(parents=True)
    (tmp_path / "run" / "cache" / "compiled").symlink_to(jax.config.jax_compilation_cache_dir)
    text, pictures = _run(
        monkeypatch,
        tmp_path,
        RUN_TINY_GRID="yes",
        ABLATION_WORKDIR=str(tmp_path / "run"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "ablation.jsonl").open()]
    assert len(rows) == 2 and all(r["tra"] > 2 * r["majority_tra"] for r in rows)
    assert "2 cells" in text and "undetermined" in text and "No law to predict from." in text
    assert pictures == 2


def test_it_shows_the_stored_grid_with_its_law_and_predictions(monkeypatch, capsys):
    """Its code as one program in this process: a second kernel would show nothing more."""
    plt, pictures = pytest.importorskip("matplotlib.pyplot"), []

    def show():
        pictures.append(len(plt.get_fignums()))
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    monkeypatch.chdir(NOTEBOOK.parent)
    for name in ("RUN_TINY_GRID", "ABLATION_JSONL"):
        monkeypatch.delenv(name, raising=False)
    exec("\n".join(c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"), {})
    text = capsys.readouterr().out
    stored = (ROOT / "results" / "law_gpu" / "ablation.jsonl").read_text().splitlines()
    assert f"{len(stored)} cells" in text
    assert "law: L* changes with" in text
    # Nine of the ten predictions that the run wrote to disk held, GPT-2's vocabulary did not.
    assert text.count(", inside") == 9 and text.count("MISSED") == 1
    assert pictures == [1, 1]


def test_nothing_is_stored_in_it_but_text_and_code():
    notebook = json.loads(NOTEBOOK.read_text())
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")
