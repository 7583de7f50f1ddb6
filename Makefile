# The two commands of the README: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
RUN = $(VENV)/bin/python

# PyTorch's build for CPUs (190 MB) is not on PyPI: name the index or the folder that has it in
# PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.  TORCH=torch takes PyPI's, with gigabytes of CUDA.
TORCH ?= torch==2.13.0+cpu

.PHONY: install demo tables fast test test-lowest test-torch test-wheel torture lint clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cr_jax needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: install
	$(VENV)/bin/cr-jax route setup.py main.py cr_jax/router.py
	$(RUN) main.py --config=configs/quickstart.py --workdir=runs/quickstart

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check --quiet .
	$(VENV)/bin/lint-imports
	$(RUN) -m mypy

tables: install
	$(RUN) -m benchmarks.tables

# About a minute on two quiet cores, once JAX has its programs of an earlier run.
fast: lint
	$(RUN) -m pytest -q -n 2 --dist worksteal -m "not slow"

test: lint
	$(RUN) -m benchmarks.tables --check
	$(RUN) -m pytest -q -n 2 --dist worksteal

# The lowest versions of all packages that setup.py allows, in an environment of its own.  Old
# packages warn of themselves, so a warning is no error here.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow" -o filterwarnings=default

$(LOWEST)/.installed: setup.py tests/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint tests/lowest.txt --editable '.[test]'
	touch $@

# The PyTorch peer of the speed benchmarks computes what the JAX model computes.
test-torch: install
	$(RUN) -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(RUN) -m pytest -q tests/benchmarks/test_torch_peer.py

# A wheel, in an environment of its own that borrows the other packages: it routes and trains
# without a checkout.  About a minute.
test-wheel: install
	rm -rf build/wheel
	$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	CR_JAX_WHEEL=$$(ls build/wheel/*.whl) $(RUN) -m pytest -q tests/test_wheel.py

# Kills, corruption, moves and hostile input: under 20 minutes on two cores.
torture: install
	$(RUN) -m benchmarks.torture --out results/torture.json

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info
