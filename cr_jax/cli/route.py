"""`cr-jax route`: which expert a text belongs to."""

import json
import os
import sys

from cr_jax.bank.files import BankFolder
from cr_jax.cli import route_many
from cr_jax.cli.inputs import check_page, checked, text_of
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, p_text, print_line, printable
from cr_jax.cli.progress import progress
from cr_jax.cli.route_flags import EPILOG as EPILOG
from cr_jax.cli.route_flags import add_arguments as add_arguments
from cr_jax.errors import UserError


def run(args) -> int:
    """Routes each file; -> 2 when one of them is bad."""
    if not 0 <= args.alpha <= 1:
        raise UserError(f"--alpha is a share and must lie in [0, 1], got {args.alpha}")
    if args.max_windows < 0:
        raise UserError(
            f"--max-windows must be 0 (the whole text) or more windows, got {args.max_windows}"
        )
    if not 0 <= args.stop < 1:
        raise UserError(
            "--stop is a confidence, at least 0 (score the whole text) and below 1, "
            f"got {args.stop}"
        )
    if args.windows < 1:
        raise UserError(f"--windows must be at least 1, got {args.windows}")
    if args.html is not None:
        check_page(args.html, args.files)
    if args.rule != "bank" and (args.cascade or args.min_candidates is not None):
        raise UserError("--rule goes with exact routing: leave out --cascade and --min-candidates")
    if args.rule != "bank":
        args.exact = True
    _check_last(args)
    route_many.check(args)
    BankFolder(args.bank)
    if not _one_by_one(args):
        return route_many.run(args, _options(args, stop=0.0))
    status, good = 0, []
    for name in args.files:
        try:
            good.append(checked(name))
        except UserError as error:
            status = complain(error)
    if not good:
        return status
    start_jax()
    from cr_jax import router
    from cr_jax.bank import ExpertBank
    from cr_jax.routing.cascade import Cascade
    from cr_jax.routing.explain import explain

    cascade = args.cascade or args.min_candidates is not None
    if cascade:
        by = Cascade.load(args.bank, args.min_candidates)
        bank = by.bank
    else:
        by = bank = ExpertBank.load(args.bank, lms=False)
    options = _options(args, args.stop)
    in_lines = args.explain or args.margin
    explained = []
    for name in good:
        explanation = None
        try:
            with progress(name, bank.tokenizer, args.max_windows) as on_block:
                if in_lines or args.html is not None:
                    explanation = explain(
                        by, text_of(name), options, windows=args.windows, on_block=on_block
                    )
                    found = explanation.route
                elif cascade:
                    found = by.route(text_of(name), options, on_block=on_block)
                else:
                    found = router.route(bank, text_of(name), options, on_block=on_block)
        except UserError as error:
            status = complain(error)
            continue
        if args.html is not None:
            explained.append((name, explanation))
        if args.json:
            more = {"explanation": explanation.to_json()} if in_lines else {}
            said = found.to_json()
            print_line(
                json.dumps(
                    {"file": name, "p_value": said["p_values"][found.nearest], **said, **more},
                    allow_nan=False,
                )
            )
        elif in_lines:
            _print_explanation(name, explanation, args, first=name == good[0])
        else:
            print_line(line(name, found, args.rule))
    if explained:
        from cr_jax.report.explanation import render
        from cr_jax.report.layout import write_page

        write_page(render(explained), args.html)
    return status


def _options(args, stop: float):
    from cr_jax.routing.options import RouteOptions

    tra = "nearest" if args.tra else "none"
    return RouteOptions(args.alpha, args.max_windows, stop, tra, args.rule, args.last_tokens)


def _check_last(args) -> None:
    """`UserError` for a number that cannot be, and for flags that are about a text's beginning."""
    if args.last_tokens < 0:
        raise UserError(
            f"--last-tokens must be 0 (the whole text) or more tokens, got {args.last_tokens}"
        )
    given = {
        "--max-windows": args.max_windows,
        "--stop": args.stop,
        "--explain": args.explain,
        "--margin": args.margin,
        "--html": args.html is not None,
    }
    for flag, set_ in given.items():
        if set_ and args.last_tokens:
            raise UserError(f"--last-tokens is about the end of a text: leave out {flag}")


def _one_by_one(args) -> bool:
    """Whether a flag asks for more than the answer of each text; `UserError` where it cannot."""
    of_one = {
        "--cascade": args.cascade or args.min_candidates is not None,
        "--stop": args.stop,
        "--explain": args.explain or args.margin or args.html is not None,
    }
    of_many = {
        "--csv": args.csv,
        "--jsonl": args.jsonl,
        "--null": args.null,
        "--only-unknown": args.only_unknown,
        "--fail-on-unknown": args.fail_on_unknown,
    }
    one = [flag for flag, given in of_one.items() if given]
    many = [flag for flag, given in of_many.items() if given]
    if one and many:
        raise UserError(f"{one[0]} is about one text at a time and {many[0]} about many: leave one")
    return bool(one) or (not many and len(args.files) == 1 and _is_large(args.files[0]))


def _is_large(name: str) -> bool:
    """Whether a bar should show how far a file is: a file that is read in pieces."""
    from cr_jax.routing.rounds import LARGE, Large, read

    # No file has more characters than bytes; it is read where it may be large.
    if name == "-" or not os.path.isfile(name) or os.path.getsize(name) <= LARGE:
        return False
    return isinstance(read(text_of(name)), Large)


def _print_explanation(name: str, explanation, args, first: bool) -> None:
    from cr_jax.cli.explanation import colours, lines

    if not first:
        print_line("")
    for line in lines(
        name,
        explanation,
        colours(args.color),
        "margin" if args.margin else "residual",
        blocks=_can_write("█▏"),
    ):
        print_line(line)


def _can_write(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _size(found) -> str:
    of = "" if found.of_windows is None else f" of {found.of_windows}"
    last = found.windows if found.of_windows is None else found.of_windows
    return (
        f"{found.windows}{of} window{'s' * (last != 1)}, "
        f"{found.tokens} token{'s' * (found.tokens != 1)}"
    )


def line(name: str, found, rule: str) -> str:
    """The answer for one text, as the epilog describes it."""
    from cr_jax.routing.result import BIGRAMS, SURPRISING, TOO_LOW, TOO_NEAR

    why = (
        f"; nothing to judge: {found.reason}"
        if found.nothing_to_judge
        else "; too predictable"
        if found.reason == TOO_LOW
        else "; others are near"
        if found.reason == TOO_NEAR
        else "; it surprises"
        if found.reason == SURPRISING
        else ""
    )
    winner = found.expert or f"unknown (nearest {found.nearest}{why})"
    more = {n: f"+{x:.3f}" for n, x in found.typicality_penalty.items() if x}
    by_bigrams = found.decided_by == BIGRAMS
    cost = found.bigrams if by_bigrams else found.residuals
    residuals = ", ".join(f"{n} {cost[n]:.3f}{more.get(n, '')}" for n in found.ranked)
    p = "usual (bigram models)" if by_bigrams else p_text(found.p_values[found.nearest])
    if found.known is None:
        p += "  (too short to judge)" if rule == "bank" else "  (not calibrated for this rule)"
    tra = f"  tra {found.tra[found.nearest]:.3f}" if found.tra else ""
    return (
        f"{printable(name)}: {winner}  margin {found.margin:.3f}  p {p}{tra} | "
        f"{residuals}  ({_size(found)})"
    )
