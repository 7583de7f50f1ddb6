"""Flags of version 0.1 under their old names: read for one version more, with a line on stderr."""

import argparse

from cr_jax.cli.output import complain


def renamed(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """`old` does what `new`, a whole number, does; it is not in the help."""
    parser.add_argument(
        old,
        type=int,
        dest=new.strip("-").replace("-", "_"),
        action=_Renamed,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
        new_name=new,
    )


class _Renamed(argparse.Action):
    def __init__(self, *args, new_name: str, **options):
        super().__init__(*args, **options)
        self.new_name = new_name

    def __call__(self, parser, namespace, values, option_string=None):
        complain(f"{option_string} is now {self.new_name}; the old name goes with the next version")
        setattr(namespace, self.dest, values)
