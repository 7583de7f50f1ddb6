"""Trains domain compressors, routes text by them and writes a report: `main.py` of a checkout, and
`cr-jax train`, which is the same program.
"""

import gc
import os
import sys

from absl import app, flags
from ml_collections import config_flags

from cr_jax.cli.streams import guarded
from cr_jax.errors import complain

_ABOUT = """\
Trains domain compressors, routes text by them and writes a report.

    {program} --config=configs/quickstart.py --workdir=runs/quickstart

Several processes as one run: `launch/` and docs/launch.md.
"""
_OWN = ("config", "workdir", "coordinator", "processes", "process", "connect_seconds", "check")


def define_flags() -> None:
    """Those of this program, in absl's own list; done once."""
    if "workdir" in flags.FLAGS:
        return
    config_flags.DEFINE_config_file("config", None, "A file in configs/.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Everything the run writes goes below this folder.")
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, when several processes train.")
    flags.DEFINE_integer("processes", 0, "How many processes there are.")
    flags.DEFINE_integer("process", -1, "Which of them this one is, from 0.")
    flags.DEFINE_float("connect_seconds", 300, "How long to wait for the other processes.")
    flags.DEFINE_boolean("check", False, "Checks the flags and the settings, runs nothing.")
    flags.mark_flags_as_required(["config", "workdir"])
    flags.register_validator("workdir", lambda path: path != "", "name a folder for the run.")


def start(argv) -> None:
    """The whole program; argv: its name and its flags.  Ends by `SystemExit`."""
    # Tracing makes many objects that live on: to look through all of them as often as Python does
    # by default is a tenth of the time until the first step.
    gc.set_threshold(50_000, 20, 50)
    sys.argv[:] = argv  # where ml_collections looks for --config.NAME=VALUE
    define_flags()
    with guarded(stdout_lost):
        app.run(main, argv=argv, flags_parser=parse)


def main(argv):
    given = flags.FLAGS
    if given.check:
        sys.exit(check(given.config, argv))
    from cr_jax.experiment.run import main as run
    from cr_jax.parallel.cluster import Cluster

    cluster = Cluster(given.coordinator, given.processes, given.process, given.connect_seconds)
    status = run(given.config, given.workdir, argv, cluster)
    if status and given.processes <= 1:
        # Stopped anywhere, also inside a compilation or a save that failed: threads may still run
        # or wait for ever, and an interpreter that is taken down beside them can crash or hang.
        # All files are closed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def help_text(config: str = "") -> str:
    """The flags of this program and every setting, with the values of `config` where it is given.

    `UserError` where that file cannot be read.
    """
    from cr_jax.config.command_line import load
    from cr_jax.config.reference import as_text

    values = load(config).to_dict() if config else None
    shown = (
        f"as {config} sets them, with the default in brackets where it is another;\n"
        if config
        else "at their defaults; a file in configs/ sets them (--config=FILE --help: to what),\n"
    )
    own = [flags.FLAGS[name] for name in _OWN]
    listed = "\n".join(f"  --{flag.name:<18} {flag.help}" for flag in own)
    return (
        f"{_ABOUT.format(program=_program())}\nFlags\n{listed}\n\n"
        f"Settings, {shown}the command line overrides them.\n\n"
        f"{as_text(values)}"
    )


def check(config, argv):
    """What is wrong with the settings themselves, in one line and status 2; needs no device."""
    from cr_jax.config import build
    from cr_jax.config.command_line import no_words
    from cr_jax.errors import UserError

    try:
        no_words(argv)
        raw = {name: value for name, value in config.to_dict().items() if name != "ablation"}
        built = build(raw)
        from cr_jax.experiment import checks  # imports JAX, for what is in order so far

        checks.settings(built)
    except UserError as error:
        return complain("error", error)
    print("flags and settings are in order; nothing was run")
    return 0


def parse(argv):
    """The flags; one line and exit status 2 when one cannot be understood."""
    from cr_jax.config import command_line
    from cr_jax.errors import UserError

    if _asks_for_help(argv):
        files = [word.partition("=")[2] for word in argv[1:] if word.startswith("--config=")]
        try:
            print(help_text(files[-1] if files else ""))
        except UserError as error:
            sys.exit(complain("error", error))
        sys.exit(0)
    missing = [f for f in ("config", "workdir") if not _given(argv, f)]
    if missing and not _given(argv, "flagfile"):
        named = {"config": "--config=FILE", "workdir": "--workdir=FOLDER"}
        needed = " and ".join(named[f] for f in missing)
        sys.exit(complain("error", f"{needed} must be given; see {_program()} --help"))
    try:
        return command_line.parse(argv)
    except UserError as error:
        sys.exit(complain("error", error))


def _program() -> str:
    """What the user called."""
    return "cr-jax train" if sys.argv[0] == "cr-jax train" else "python main.py"


def _asks_for_help(argv):
    flags_of = [word for word in argv[1:] if word.startswith("-")]
    return any(word.lstrip("-").startswith("help") or word == "-h" for word in flags_of)


def _given(argv, flag):
    return any(word.lstrip("-").split("=")[0] == flag for word in argv[1:] if word[:1] == "-")


def stdout_lost(why):
    if _asks_for_help(sys.argv):
        return  # `| head` has seen enough
    complain(
        "note",
        f"standard output takes nothing any more ({why}); the run goes on, and what "
        "it finds is written to --workdir",
    )
