"""Raw record logs -> results/paper.json and the rows of RESULTS.md.

    python -m benchmarks.record.table results/record/*seed?.json results/record/*[0-9]s.json \
        --swap results/record/*swap*.json

Runs of the record are those without changed settings on the record's chip (rule 8); those on
another stand beside it.  `--swap`: an expert of another domain.
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
    p.add_argument("logs", nargs="+", help="raw JSON of benchmarks.record.run")
    p.add_argument("--swap", help="raw JSON of an expert trained on other text")
    p.add_argument("--out", default="results/paper.json")
    args = p.parse_args()
    rows = [named(json.loads(Path(path).read_text())) for path in args.logs]
    # Rows with changed settings, such as fewer latents, are no runs of the record.
    plain = [r for r in rows if not r["changes"]]
    seeds = [r for r in plain if CHIP in r["device"]]
    if not seeds:
        p.error(f"none of the logs is of an unchanged run on an {CHIP}")
    times = [r["seconds_to_99_47"] for r in seeds if r["seconds_to_99_47"] is not None]
    record = {"seconds_to_99_47": statistics.mean(times) if times else None, "seeds": len(times),
              "spread": max(times) - min(times) if times else None, "all": times,
              "device": seeds[0]["device"], "commit": seeds[0]["commit"],
              "elsewhere": [{k: r[k] for k in ("seed", "seconds_to_99_47", "device", "commit")}
                            for r in plain if r not in seeds]}
    swap = named(json.loads(Path(args.swap).read_text())) if args.swap else None
    Path(args.out).write_text(json.dumps({"rows": rows, "record": record, "swap": swap}, indent=1))
    for r in rows:
        print(f"| {' '.join(r['changes']) or r['seed']} | {r['train_seconds']:.0f} s | "
              f"{r['train_tokens'] / 1e6:.0f} M | "
              + " | ".join(f"{r['tra'][n]:.2%}" for n in NAMES.values() if n in r["tra"])
              + f" | {r['nll']['code_test']:.3f} / {r['nll']['wikitext_valid']:.2f} | "
              f"{r['window_exact']['code_test']:.1%} | "
              f"{r['seconds_to_99_47'] or float('nan'):.0f} s |")


def named(raw):
    """The kept fields, with the evaluation sets under the names of results/paper.json."""
    row = {k: raw[k] for k in KEPT}
    for group in ("tra", "nll", "window_exact", "majority_tra", "tokens"):
        row[group] = {NAMES[n]: v for n, v in raw[group].items()}
    return row


if __name__ == "__main__":
    main()
