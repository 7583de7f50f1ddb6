# The two commands of the README: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: install demo tables test torture lint clean

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
	$(VENV)/bin/lint-imports

tables: install
	$(RUN) -m benchmarks.tables

test: lint
	$(RUN) -m benchmarks.tables --check
	$(RUN) -m pytest -q -n 2 --dist worksteal

# Kills, corruption, moves and hostile input: under 20 minutes on two cores.
torture: install
	$(RUN) -m benchmarks.torture --out results/torture.json

clean:
	rm -rf $(VENV) build dist *.egg-info
