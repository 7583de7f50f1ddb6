"""The tables of docs/results, results/README.md and README.md, filled from results/*.json.

python -m benchmarks.tables           # fills every table between its markers
python -m benchmarks.tables --check   # one line per stale table, exit status 1
"""
