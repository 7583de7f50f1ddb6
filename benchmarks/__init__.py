"""Speed, with its peers.  Run `python benchmarks/throughput.py --help`."""
