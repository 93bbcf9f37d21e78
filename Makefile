# `make demo` and `make test` need nothing but Python, make and a network: they set up .venv themselves.
#
#   make test PYTHON=python3.12     another Python for a new environment
#   make test VENV=/path/to/venv    another environment, made there if there is none
#   make test ARGS="-k layers"      arguments for pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

NEWEST_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs overhead clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## search a small CNN on digits, show it, test it (examples/quickstart.py)
	@$(BIN)/python examples/quickstart.py $(DEMO_ARGS)

test: $(INSTALLED) ## all tests, doctests included
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED) ## ruff (rules and format) and mypy; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED) ## build the documentation into site/, every warning an error
	NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict --quiet

overhead: $(INSTALLED) ## time the sampler takes per trial
	$(BIN)/python -m optuna_trlhpo.benchmarks overhead

clean: ## remove caches and what was built; environments and studies stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find optuna_trlhpo examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an installation that was cut off is taken up again by the next call.
$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) was not found; name a Python 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c '$(NEWEST_ENOUGH)' || \
	  { echo "optuna-trlhpo needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { echo "Making an environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV); the first time this takes some minutes, for torch is large"
	@$(BIN)/python -m pip install --disable-pip-version-check -e ".[all]"
	@touch $@
