"""Two real processes restore the step that process 0 chose, or none at all."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
from local_launch import ENVIRONMENT

from cr_jax.training.checkpoint import Checkpointer

SCRIPT = """
import json, pathlib, sys
import numpy as np
from cr_jax.errors import UserError
from cr_jax.parallel import cluster, processes
from cr_jax.training import checkpoint
from cr_jax.training.checkpoint import Checkpointer

folder, port, me = sys.argv[1], sys.argv[2], int(sys.argv[3])
cluster.start(cluster.Cluster(f"localhost:{port}", 2, me, 60.0))
state, found = {"w": np.zeros(4, np.float32)}, {}
checkpointer = Checkpointer(folder)
if me:
    checkpointer.steps = lambda: [1]  # a listing that lags
step, restored, *_ = checkpointer.restore(state)
found["lagging"] = [step, float(restored["w"][0])]
if me:
    checkpoint.SEEN_WITHIN = 0.0
    checkpoint.sha256 = lambda path: "another"
try:
    checkpointer.restore(state)
except UserError as error:
    found["another seal"] = str(error)
found["sent"] = processes.from_first(lambda: {"from": me, "text": "grö\u00dfe" * 1000})["from"]
found["all"] = [processes.all_true(True), processes.all_true(me == 0)]
pathlib.Path(folder).with_name(f"found-{me}.json").write_text(json.dumps(found))
processes.wait("both are done")
"""


def test_a_lagging_listing_and_another_seal(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpointer = Checkpointer(folder)
    for step in (1, 2):
        checkpointer.save(step, {"w": np.full(4, step, np.float32)}, {}, {})
    checkpointer.close()
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    with open(tmp_path / "log", "wb") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(folder), str(port), str(me)],
                env=ENVIRONMENT,
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
            for me in (0, 1)
        ]
        try:
            statuses = [process.wait(120) for process in started]
        finally:
            for process in started:
                process.kill()
    assert statuses == [0, 0], (tmp_path / "log").read_text()[-2000:]
    found = [json.loads((tmp_path / f"found-{me}.json").read_text()) for me in (0, 1)]
    for me in (0, 1):
        assert found[me]["lagging"] == [2, 2.0]
        assert found[me]["sent"] == 0 and found[me]["all"] == [True, False]
    assert "another process does not see checkpoint 2" in found[0]["another seal"]
    assert "process 1 does not see checkpoint 2" in found[1]["another seal"]
    assert os.listdir(folder)
