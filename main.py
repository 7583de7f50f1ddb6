"""Trains domain compressors, routes by reconstruction and writes a report.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Several processes as one run: `launch/` and docs/launch.md.
"""

import os
import sys

from absl import app, flags
from ml_collections import config_flags

config_flags.DEFINE_config_file("config", None, "A file in configs/.", lock_config=True)
flags.DEFINE_string("workdir", None, "Everything the run writes goes below this folder.")
flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, when several processes train.")
flags.DEFINE_integer("processes", 0, "How many processes there are.")
flags.DEFINE_integer("process", -1, "Which of them this one is, from 0.")
flags.DEFINE_float("connect_seconds", 300, "How long to wait for the other processes.")
flags.mark_flags_as_required(["config", "workdir"])
flags.register_validator("workdir", lambda path: path != "", "name a folder for the run.")


def main(argv):
    from cr_jax.experiment.run import main as run
    from cr_jax.parallel.processes import Cluster

    given = flags.FLAGS
    cluster = Cluster(given.coordinator, given.processes, given.process, given.connect_seconds)
    status = run(given.config, given.workdir, argv, cluster)
    if status == 130 and given.processes <= 1:
        # Stopped anywhere, also inside a compilation: threads of XLA may still run, and an
        # interpreter that is taken down beside them can crash.  All files are closed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def help_text() -> str:
    """The flags of this program and every setting of a config."""
    from cr_jax.config.reference import as_text

    own = [flags.FLAGS[name] for name in ("config", "workdir", "coordinator", "processes",
                                          "process", "connect_seconds")]
    listed = "\n".join(f"  --{flag.name:<18} {flag.help}" for flag in own)
    return (f"{__doc__}\nFlags\n{listed}\n\nSettings, at their defaults; a file in configs/ sets "
            f"them, the command line overrides it.\n\n{as_text()}")


def parse(argv):
    """The flags; one line and exit status 2 when one cannot be understood."""
    from cr_jax.config import command_line
    from cr_jax.errors import UserError

    if any(word.lstrip("-").startswith("help") or word == "-h" for word in argv[1:]
           if word.startswith("-")):
        print(help_text())
        sys.exit(0)
    try:
        return command_line.parse(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
