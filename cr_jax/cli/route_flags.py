"""The flags of `cr-jax route`, and what its help says."""

from cr_jax.cli import route_many
from cr_jax.cli.inputs import path
from cr_jax.cli.renamed import renamed

EPILOG = """\
Prints one line per file, in order:
  FILE: EXPERT  margin M  p P | EXPERT R, EXPERT R, ...  (W windows, N tokens)
  EXPERT  the winner, or unknown and the nearest expert; "too predictable": there is less in the
          text than in that expert's own; "others are near": they need little more than it, as
          they do not on its own text; "it surprises": that expert is wrong more often than its
          probabilities say; "nothing to judge": it is blank or repeats one thing
  margin  second best minus best R (+ X), nats/token: how clear the choice is
  p       how usual the residual, the margin and the surprise (what the text costs beyond the
          entropy of the winner's predictions) are among the winner's own documents, or for a
          single window among its own windows; 1: typical, below alpha: unknown;
          "-  (too short to judge)" for a text with fewer tokens than the expert was calibrated
          on: EXPERT is then the nearest one, and neither known nor unknown
  R       residual of each expert in nats/token, best first; `cr-jax bank list` says of what;
          R+X where the bank's rule adds X to what is not typical of the expert, and ranks by both

A bank whose screen was fitted (`cr-jax bank fit-cascade`; the one that ships has it) lets bigram
models, tiny compressors counted on the experts' own text, decide alone where they are certain of
the expert and that it knows the text.  p is then "usual (bigram models)", and M and R are of the
bigram models.  All other texts are scored by the experts that may win, at least two of them, and
only these are shown; M is inf only for a bank of one expert.  Of a text of twelve windows or more
four are scored first, from a usual to an unusual one; where they put it far inside its expert's
domain the others are not scored: "(4 of 27 windows, ...)", and M, p and R are estimates.  --exact
lets all experts score every text, and all of it.

A folder stands for its files, hidden ones left out; what is not text there is passed over and
counted.  --jsonl reads JSON lines and writes each with its "route"; --null reads documents between
NUL bytes.  Answers come in the order of the texts; a summary of folders and streams goes to stderr.

With --cascade the experts' bigram models, tiny compressors counted on the experts' own text, read
the text first; only the candidates, the experts whose bigram models have the lowest residuals, are
scored in full and shown: as many as was measured for the bank, more where bigram models are near
each other; with --min-candidates K exactly K.  --json has every bigram model's residual under
"bigrams".

With --tra each line also has "tra T", the share of tokens that the winner rebuilds exactly (token
reconstruction accuracy); it is measured by reading the text once more.

With --explain, more lines per file: a bar per expert, nearest first, with its residual, p and TRA;
the verdict in a sentence; on a terminal the text, each token coloured by its residual under the
nearest expert (--margin: by how much more the runner-up pays for it), elsewhere or with NO_COLOR
the tokens that weigh most.  --html writes the same as one page without scripts, in which pointing
at a token shows every expert's residual.

Files are text of any size, in UTF-8 or, where a byte order mark says so, UTF-16 or UTF-32; they
are read in pieces.  Line ends (CR LF, CR) and composed or decomposed accents make no difference,
unless the bank was trained on raw text.  On a terminal a bar shows how far a large one is read.

--max-windows N judges a text by its first N windows; `cr-jax bank list` says how many tokens a
window has.  --last-tokens N judges it by its last N tokens, read anew, so that what stands before
them in a prompt has no say.

--stop 0.99 scores a text until its winner is certain to 99%, by a t test of the margins of blocks
of the windows so far, from 48 windows on, which allows for neighbouring windows being alike; the
line then says how many of the text's windows were scored (--json: "windows" and "of_windows"), and
a text whose experts stay close is scored to its end.  With --stop a text that changes its domain
later is judged by its beginning.

A bad file costs one line on stderr and exit code 2 at the end; the others are routed all the same.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax route`."""
    parser.add_argument("--json", action="store_true", help="one JSON object per file and line")
    parser.add_argument(
        "--cascade",
        action="store_true",
        help="score in full only the candidates that bigram models choose",
    )
    parser.add_argument(
        "--min-candidates",
        type=int,
        metavar="K",
        help="cascade with exactly so many candidates (default: what was measured "
        "for the bank: a least number, and all whose bigram model is near the "
        "nearest)",
    )
    renamed(parser, "--keep", "--min-candidates")
    parser.add_argument(
        "--rule",
        choices=("bank", "rebuild", "code_length"),
        default="bank",
        help="rank by the bank's own rule (default), by nats/token to rebuild the "
        "text (the paper's), or by nats/token to predict it; by another rule than "
        "its own a bank has no p-values",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        default=0.05,
        metavar="A",
        help="a p-value below this is unknown (default 0.05)",
    )
    parser.add_argument(
        "--max-windows",
        type=int,
        default=0,
        metavar="N",
        help="judge by the first N windows and read no further (default 0: all)",
    )
    renamed(parser, "--head", "--max-windows")
    parser.add_argument(
        "--last-tokens",
        type=int,
        default=0,
        metavar="N",
        help="judge by the last N tokens alone, of a prompt by what is asked at its end (default "
        "0: all)",
    )
    parser.add_argument(
        "--stop",
        type=float,
        default=0.0,
        metavar="C",
        help="score no further once the winner is certain to C, say 0.99 (default "
        "0: score the whole text)",
    )
    parser.add_argument(
        "--tra",
        action="store_true",
        help="also measure the share of tokens that the winner rebuilds exactly",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show what every expert makes of the text, token by token",
    )
    parser.add_argument(
        "--margin",
        action="store_true",
        help="explain; colour tokens by what the runner-up pays more for them",
    )
    parser.add_argument(
        "--html", metavar="OUT", type=path, help="write the explanation to the page OUT.html"
    )
    parser.add_argument(
        "--windows",
        type=int,
        default=8,
        metavar="N",
        help="explain the tokens of the first N windows (default 8)",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour the explained text (default auto: on a terminal)",
    )
    route_many.add_arguments(parser)
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=path,
        help="UTF-8 text, or a folder of such files; - is standard input",
    )
