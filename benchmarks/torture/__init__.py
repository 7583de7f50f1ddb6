"""Torture: runs that are killed, moved, starved and lied to.

`make torture` (under 20 minutes on two cores) does to real runs of `main.py`, on a model of
thousands of weights that saves every step, what happens to jobs, and writes results/torture.json:

- `kills`: kill -9 at 50 random moments, most of them while a checkpoint is written behind the
  steps; SIGTERM; a second run in the same workdir.  The final parameters and every logged figure
  equal an undisturbed run's, bit for bit.
- `processes`: the same with two processes that train as one: one is killed, or both, or one stands
  still, or one gets SIGTERM.  The other ends by itself with one line, and both go on bit for bit.
- `disks`: a disk that is full, a file that may not grow, a folder that becomes read-only, all
  while a checkpoint is written: one line, the older checkpoint whole, and the run goes on later.
- `flips`: 500 one-bit flips, every file cut and every file missing, in checkpoints and in a bank:
  each is noticed before a number is used; training falls back to the step before with one warning
  line.  Also what the check costs.
- `elastic`: one run on 8, 4, 2, 1 and 8 devices, under jit, pmap and FSDP, in 2, 1 and 2
  processes: the windows that were really drawn are those of a run that stayed on one device.
- `fuzz`: 10,000 generated inputs to `cr-jax`, many behind correct seals: exit status 2 and one
  line, or an answer; no traceback, no hang, no write outside the bank, no unpickling.

`python -m benchmarks.torture --quick` does a few of each; tests/torture/ has the short versions.
"""
