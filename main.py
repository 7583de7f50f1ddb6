"""Trains domain compressors, routes by reconstruction and writes a report.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

import sys

from absl import app, flags
from ml_collections import config_flags

config_flags.DEFINE_config_file("config", None, "A file in configs/.", lock_config=True)
flags.DEFINE_string("workdir", None, "Everything the run writes goes below this folder.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    from cr_jax.app import main as run

    sys.exit(run(flags.FLAGS.config, flags.FLAGS.workdir, argv))


if __name__ == "__main__":
    app.run(main)
