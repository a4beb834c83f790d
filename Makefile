# What people and CI type. `make help` lists it. Needs Python 3.11 or later with venv, and nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test drills clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(VENV)/.installed-dev ## a virtual environment with everything, in .venv

demo: $(VENV)/.installed-demo ## the whole stage on this machine, against a backdoored classifier
	$(BIN)/zipstage demo

# The slow part comes last: its closing line is the last of the output.
test: $(VENV)/.installed-dev ## lint, types, import rules and the test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest

drills: $(VENV)/.installed-dev ## the long runs: crashes, node loss, load, real servers
	$(BIN)/python -m pytest tests/drills -m drill -s --timeout=3600

clean: ## what the other targets made
	rm -rf $(VENV) build dist *.egg-info demo-out .drills .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11 or later, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: Python 3.11 or later is needed. Name one: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each extra: done again when what is to be installed changes. The build backend is pinned like all
# else, so it is installed first and the isolated build, which would take any version, is switched off.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt setuptools
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[$*]'
	@touch $@
