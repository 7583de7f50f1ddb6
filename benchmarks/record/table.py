"""Raw record logs -> results/paper.json.

    python -m benchmarks.record.table results/record/*seed?.json results/record/*[0-9]s.json \
        --swap results/record/*swap*.json

The record is of runs without changed settings, by one command, on the record's chip (rules 7 and
8): those that agree in device, commit and every setting, seconds of training included, and all
meet the target, at least two seeds; the fastest such command.  The others stand beside it.
`--swap`: an expert of another domain.
"""

import argparse
import json
import statistics
from pathlib import Path

CHIP = "H100"
KEPT = ("config", "changes", "bottleneck", "L", "M", "d_z", "params", "seed", "train_tokens",
        "train_seconds", "tokens_per_s", "compile_seconds", "seconds_to_99_47", "device", "commit",
        "tra", "nll", "window_exact", "majority_tra", "tokens")
NAMES = {"test": "code_test", "valid": "code_valid", "wikitext": "wikitext_valid",
         "wikitest": "wiki_test",
         "random": "random"}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("logs", nargs="+", help="raw JSON in results/record")
    p.add_argument("--swap", help="raw JSON of an expert trained on other text")
    p.add_argument("--out", default="results/paper.json")
    args = p.parse_args()
    raws = [json.loads(Path(path).read_text()) for path in args.logs]
    rows = [named(raw) for raw in raws]
    # Rows with changed settings, such as fewer latents, are no runs of the record.
    plain = [r for r in rows if not r["changes"]]
    seeds = record_runs(raws)
    if seeds is None:
        p.error(f"none of the commands has two seeds on an {CHIP}, unchanged, all at the target")
    times = [r["seconds_to_99_47"] for r in seeds]
    record = {"seconds_to_99_47": statistics.mean(times), "seeds": len(times),
              "spread": max(times) - min(times), "all": times,
              "device": seeds[0]["device"], "commit": seeds[0]["commit"],
              "others": [{k: r[k] for k in ("seed", "seconds_to_99_47", "train_seconds", "device",
                                            "commit")} for r in plain if r not in seeds]}
    swap = named(json.loads(Path(args.swap).read_text())) if args.swap else None
    Path(args.out).write_text(json.dumps({"rows": rows, "record": record, "swap": swap}, indent=1))
    for r in rows:
        print(f"| {' '.join(r['changes']) or r['seed']} | {r['train_seconds']:.0f} s | "
              f"{r['train_tokens'] / 1e6:.0f} M | "
              + " | ".join(f"{r['tra'][n]:.2%}" for n in NAMES.values() if n in r["tra"])
              + f" | {r['nll']['code_test']:.3f} / {r['nll']['wikitext_valid']:.2f} | "
              f"{r['window_exact']['code_test']:.1%} | "
              f"{r['seconds_to_99_47'] or float('nan'):.0f} s |")


def record_runs(raws):
    """The rows of the fastest command that rule 7 allows; None if there is none."""
    commands = {}
    for raw in raws:
        if not raw["changes"] and CHIP in raw["device"]:
            key = raw["device"], raw["commit"], json.dumps(raw["settings"], sort_keys=True)
            commands.setdefault(key, []).append(named(raw))
    counted = [rows for rows in commands.values() if len({r["seed"] for r in rows}) > 1
               and None not in [r["seconds_to_99_47"] for r in rows]]
    return min(counted, default=None,
               key=lambda rows: statistics.mean(r["seconds_to_99_47"] for r in rows))


def named(raw):
    """The kept fields, with the evaluation sets under the names of results/paper.json."""
    row = {k: raw[k] for k in KEPT}
    for group in ("tra", "nll", "window_exact", "majority_tra", "tokens"):
        row[group] = {NAMES[n]: v for n, v in raw[group].items()}
    return row


if __name__ == "__main__":
    main()
