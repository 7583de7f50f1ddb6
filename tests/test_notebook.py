"""The notebook runs from top to bottom, on a grid that it trains itself and on the stored one."""

import json
import os
import re
from pathlib import Path

import pytest
import quick_xla

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
        "XLA_FLAGS": quick_xla.FLAGS,  # and one device
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
    text, pictures = _run(
        monkeypatch,
        tmp_path,
        RUN_TINY_GRID="yes",
        ABLATION_WORKDIR=str(tmp_path / "run"),
        PLAY_STEPS="2",
        PLAY_WORKDIR=str(tmp_path / "play"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "ablation.jsonl").open()]
    assert len(rows) == 2 and all(r["tra"] > 2 * r["majority_tra"] for r in rows)
    assert "2 cells" in text and "undetermined" in text and "No law to predict from." in text
    assert [f"{k} latent" in text for k in (1, 2, 4, 8)] == [True] * 4
    assert pictures == 3


def _cells():
    return [c for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"]


def test_it_shows_the_grid_that_ships_and_its_stored_outputs_are_what_it_prints(
    monkeypatch, capsys, tmp_path
):
    """Its code as one program in this process, outside a checkout: a second kernel would show
    nothing more.  What is trained to play with is left out."""
    plt, pictures = pytest.importorskip("matplotlib.pyplot"), []

    def show():
        pictures.append(len(plt.get_fignums()))
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    monkeypatch.chdir(tmp_path)
    for name in ("RUN_TINY_GRID", "ABLATION_JSONL"):
        monkeypatch.delenv(name, raising=False)
    cells = [c for c in _cells() if "play" not in c.metadata.get("tags", ())]
    exec("\n".join(c.source for c in cells), {})
    text = capsys.readouterr().out
    assert "120 cells" in text and "law: L* changes with" in text
    # Nine of the ten predictions that the run wrote to disk held, GPT-2's vocabulary did not.
    assert text.count(", inside") == 9 and text.count("MISSED") == 1
    assert pictures == [1, 1, 1]
    assert text == "".join(o.text for c in cells for o in c.outputs if o.output_type == "stream")


def test_its_outputs_are_stored_and_name_no_place_of_the_machine_that_made_them():
    outputs = [o for cell in _cells() for o in cell.outputs]
    kinds = [kind for o in outputs for kind in o.get("data", {})]
    assert kinds.count("image/png") == 3 and kinds.count("text/html") == 1
    assert {o.get("name", "stdout") for o in outputs} == {"stdout"}  # no error, no warning
    assert [c.execution_count for c in _cells()] == list(range(1, len(_cells()) + 1))
    assert not re.search(r"/(tmp|home|root|work|usr)/", NOTEBOOK.read_text(encoding="utf-8"))
    assert NOTEBOOK.stat().st_size < 500_000


def test_of_more_latents_more_came_back():
    """The stored outputs of the compressor to play with."""
    text = "".join(o.get("text", "") for c in _cells() for o in c.outputs)
    shares = [float(x) for x in re.findall(r"latents?: +([0-9.]+)% of the tokens", text)]
    assert len(shares) == 4 and shares == sorted(shares) and shares[-1] > 90 and shares[0] < 60
