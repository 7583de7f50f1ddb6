"""Trains domain compressors, routes text by them and writes a report; `cr-jax train` is the same.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Several processes as one run: `launch/` and docs/launch.md.
"""

import sys

from cr_jax.cli import train

if __name__ == "__main__":
    train.start(sys.argv)
