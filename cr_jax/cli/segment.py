"""`cr-jax segment`: the spans of a text, each with its expert."""

import json
import math
import os
import sys

from cr_jax.cli.inputs import check_page, checked, path, text_of
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, p_text, print_line, printable
from cr_jax.errors import UserError

EPILOG = """\
Prints each span of a file, in order, and then how many there were:
  FILE:A-B  EXPERT  p P  (T tokens, margin M nats/token)
  FILE: N spans, T tokens
A-B are its first and last line; a line inside which the expert changes belongs to two spans.
An expert in brackets is the nearest one of a span that no expert knows.  P is the span's p-value
(1: typical of the expert's own text, below --alpha: unknown), M the lead over the next expert.

Every token costs each expert some nats, a change of expert costs --switch nats, and a span has at
least --minimum tokens; the spans are those with the lowest total.  Then each span is scored alone
by its own expert, which knows it or does not.  Any size of text takes the same memory; where a
switch lies is final once 2,048 more tokens were read.  Where stdout is no terminal and stderr is
one, a bar there says how far a file is.

--lines writes every line of the text after the expert of its first character, --json one object
per file; both hold what they write in memory.  --html writes a page too, without scripts: the
beginning of each text coloured by expert, what its tokens cost, and its spans.  A bad file costs
one line on stderr and exit code 2 at the end; the others are cut all the same.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax segment`."""
    for name, kind, metavar, default, text in (
        ("switch", float, "NATS", 30.0, "what a change of expert costs"),
        ("minimum", int, "N", 32, "tokens of a span at least"),
        ("alpha", float, "A", 0.05, "a span whose p-value is below this is unknown"),
    ):
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text} (default {default:g})",
        )
    parser.add_argument(
        "--bigrams",
        action="store_true",
        help="let bigram models (counts of token pairs) alone find the switches: faster, and "
        "nearly as good (docs/segments.md has figures)",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON object per file and line")
    shape.add_argument("--lines", action="store_true", help="the text, each line with its expert")
    parser.add_argument(
        "--html", metavar="OUT", type=path, help="also show the spans on the page OUT.html"
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", type=path, help="UTF-8 text; - is standard input"
    )


def run(args) -> int:
    """Cuts each file; -> 2 when one of them is bad."""
    from cr_jax.routing.options import SegmentOptions

    options = SegmentOptions(
        args.switch, args.minimum, args.alpha, "bigrams" if args.bigrams else "experts"
    )
    if args.html is not None:
        check_page(args.html, args.files)
    status, good = 0, []
    for name in args.files:
        try:
            good.append(checked(name))
        except UserError as error:
            status = complain(error)
    if not good:
        return status
    start_jax()
    from cr_jax.bank import ExpertBank

    bank = ExpertBank.load(args.bank, lms=False)
    show = _json if args.json else _labelled if args.lines else _listed
    from cr_jax.routing.segment_view import SegmentView

    views = []
    for name in good:
        view = None if args.html is None else SegmentView(bank.tokenizer)
        try:
            for line in show(name, bank, options, view):
                print_line(line)
        except UserError as error:
            status = complain(error if name in str(error) else f"{name}: {error}")
            continue
        views.append((name, view))
    if args.html is not None and views:
        from cr_jax.report.layout import write_page
        from cr_jax.report.segments import render

        write_page(render(views), args.html)
    return status


def _spans(name, text, bank, options, view):
    from cr_jax.routing.segment import segments  # after JAX was set up

    with _bar(name) as bar:

        def read(ids, nats):
            if not bar.disable:
                bar.update(len(bank.tokenizer.to_bytes(ids)))
            if view is not None:
                view.read(ids, nats)

        found = segments(bank, text, options, on_tokens=read)
        yield from found if view is None else view.watch(found)


def _bar(name):
    """How much of a file is cut, on a terminal that does not show the spans as well."""
    from tqdm import tqdm

    seen = [getattr(s, "isatty", bool)() for s in (sys.stderr, sys.stdout)]
    return tqdm(
        total=os.path.getsize(name) if os.path.isfile(name) else None,
        desc=printable(name),
        unit="B",
        unit_scale=True,
        leave=False,
        disable=seen != [True, False],
    )


def _name(span) -> str:
    return span.expert or f"[{span.nearest}]"


def _listed(name, bank, options, view):
    """A line for each span as it is settled, and one for the file."""
    wide, count, tokens = max(map(len, bank.names)) + 2, 0, 0
    for span in _spans(name, text_of(name), bank, options, view):
        count, tokens = count + 1, span.end
        p = p_text(span.route.p_values[span.nearest])
        margin = "" if math.isinf(span.margin) else f", margin {span.margin:.2f} nats/token"
        at = f"{printable(name)}:{span.lines[0]}-{span.lines[1] - 1}"
        size = f"({span.end - span.start:,} tokens{margin})"
        yield f"{at:{len(name) + 12}}  {_name(span):{wide}}  p {p}  {size}"
    yield (
        f"{printable(name)}: {count:,} span{'s' * (count != 1)}, "
        f"{tokens:,} token{'s' * (tokens != 1)}"
    )


def _labelled(name, bank, options, view):
    """Each line of the text in the bank's form, after the expert of its first character."""
    from cr_jax.data.text_form import formed

    text = "".join(formed(text_of(name), bank.text_form))
    found = list(_spans(name, text, bank, options, view))
    wide, spans = max(len(_name(s)) for s in found), iter(found)
    span, place = next(spans), 0
    for line in text.split("\n"):
        while place >= span.characters[1] and (after := next(spans, None)):
            span = after
        yield f"{_name(span):{wide}} | {printable(line)}"
        place += len(line) + 1


def _json(name, bank, options, view):
    """One object, whole or not at all."""
    found = [_plain(span) for span in _spans(name, text_of(name), bank, options, view)]
    yield json.dumps({"file": name, "spans": found}, allow_nan=False)


def _plain(span):
    route = span.route
    p = route.p_values[route.nearest]
    return {
        "expert": span.expert,
        "nearest": span.nearest,
        "reason": route.reason,
        "start": span.start,
        "end": span.end,
        "characters": list(span.characters),
        "lines": [span.lines[0], span.lines[1] - 1],
        "p_value": None if math.isnan(p) else p,
        "residual": route.residuals[route.nearest],
        "margin": None if math.isinf(span.margin) else span.margin,
        "saved": span.saved,
    }
