# One command per chore, the same here and in CI. Everything lives in .venv; `make clean` removes it.
#   make demo   train a sick network, watch it being diagnosed, get a report
#   make test   set up and run every test
# What `make bench` leaves out: other tools beside it (benchmarks/peers_overhead.py), growth with size, compiled models, long runs; docs/performance.md names each.

PYTHON ?= python3
VENV   ?= .venv
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input -qq

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types docs bench gate clinic experiments pictures clean

help:  ## list the chores
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: $(VENV)/.ready  ## train a sick network on real images, diagnose it live, write the report
	@$(VENV)/bin/nndoctor demo $(ARGS)

setup: $(VENV)/.ready-dev  ## make .venv with everything for development

test: $(VENV)/.ready-dev  ## run every test (ARGS="-k rules" narrows)
	@$(VENV)/bin/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(VENV)/.ready-dev  ## ruff over everything
	@$(VENV)/bin/ruff check .

types: $(VENV)/.ready-dev  ## mypy, strict, over the package
	@$(VENV)/bin/mypy

docs: $(VENV)/.ready-docs  ## build the documentation into site/, one page per diagnosis, signal and command; a broken link fails
	@# Not --quiet: it would silence the warnings before strict counts them, and a broken link would pass.
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build $(ARGS)

bench: $(VENV)/.ready-dev  ## measure the overhead, write docs/performance.md (about 20 minutes)
	@$(VENV)/bin/python benchmarks/overhead.py --write $(ARGS)

gate: $(VENV)/.ready-dev  ## compare the doctor's own cost with the committed reference (half a minute)
	@$(VENV)/bin/python benchmarks/gate.py

clinic: $(VENV)/.ready-dev  ## train every sick and healthy case over three seeds, write docs/clinic.md (about 40 minutes)
	@$(VENV)/bin/python benchmarks/clinic.py --write $(ARGS)
	@$(VENV)/bin/python scripts/make_catalogue.py

experiments: $(VENV)/.ready-dev  ## put every published claim to the test, write docs/experiments.md (about 30 minutes)
	@$(VENV)/bin/nndoctor lab experiment all --work build/experiments
	@$(VENV)/bin/python scripts/make_experiments.py --collect build/experiments

pictures: $(VENV)/.ready-dev  ## redraw the README's pictures from a real run (needs chromium)
	@$(VENV)/bin/python scripts/make_pictures.py

clean:  ## remove the environment, caches and build output; recorded runs stay
	@rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis nndoctor.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is redone when what it was made from has changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "nndoctor needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not found)." >&2; \
	  echo "Say which one to use: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >$(VENV).log 2>&1 || { \
	  cat $(VENV).log >&2; rm -rf $(VENV) $(VENV).log; \
	  echo "Could not make a virtual environment with '$(PYTHON) -m venv' (reason above)." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv; or name another Python: make $(MAKECMDGOALS) PYTHON=..." >&2; exit 1; }
	@rm -f $(VENV).log

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) with $$($(VENV)/bin/python --version) (once; a minute or more, PyTorch is large)"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) for development with $$($(VENV)/bin/python --version) (once; a minute or more, PyTorch is large)"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-docs: pyproject.toml constraints.txt | $(VENV)/.ready-dev
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@
