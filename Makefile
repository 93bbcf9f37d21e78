# `make demo` and `make test` need nothing but Python, make and a network: they set up .venv themselves.
#
#   make test PYTHON=python3.12     another Python for a new environment
#   make test VENV=/path/to/venv    another environment, made there if there is none
#   make test ARGS="-k layers"      arguments for pytest
#   make test WORKERS=0             tests in one process, as a debugger needs it; else one a core, 8 at most
#   make test-lowest LOWEST=DIR     another environment for the lowest versions, which are never put into VENV
#   make fuzz FUZZ=1000             more examples
#   make bench-full JOBS=16         processes of a benchmark; ROWS=DIR keeps its rows elsewhere

PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
ARGS ?=
WORKERS ?= logical
DEMO_ARGS ?=
JOBS ?= 2
FUZZ ?= 100
ROWS ?= benchmark-rows

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCHMARKS := $(BIN)/python -m optuna_trlhpo.benchmarks

# One thread a process, and none that waits for another keeps a core busy. Each process takes its tests in
# order, so that those of a file, which share what they were given, mostly stay together.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --maxprocesses 8 --dist worksteal

# What an environment holds, and which tests it runs; `test-lowest` has its own of all three.
EXTRAS := all
VERSIONS :=
TESTS :=

# Words in the names of folders, files or tests: those that touch a dependency, and Optuna's own of any sampler.
LOWEST_TESTS := test_export or test_quantisation or test_model_bytes or test_training or test_model or test_data or WithoutStartup or test_publish or test_dependencies or test_tables or test_every_figure or test_gaussian_process or test_layer_prior or old_studies
LOWEST_EXTRAS := cnn,dashboard,export,visualization,bench,dev

WITH_LOWEST := $(MAKE) --no-print-directory VENV='$(LOWEST)' EXTRAS='$(LOWEST_EXTRAS)' VERSIONS=tests/lowest.txt

SMAC := $(BIN)/python -c 'import smac' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check -e ".[smac]"
NEWEST_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))

# A study of the wheel alone, whose prior for layers is one of its files.
IMPORTED := import os, optuna, optuna_trlhpo as it; assert it.__file__.startswith(os.path.abspath('installed')), it.__file__; \
	space = it.LayerSpace(max_layers=2, min_accuracy=None); study = optuna.create_study(sampler=it.TRLHPOSampler(seed=0)); \
	study.optimize(lambda trial: float(len(space.suggest(trial))), n_trials=3); assert study.trials[0].user_attrs == {}

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-all test-lowest install install-lowest dist test-smac test-workers soak-workers test-browser lint format docs bench bench-full bench-foreign ablate transfer real confirm pareto bench-engine train-less engine-search small compress repeats reports seconds stopping parallel policy table2 table2-night idioms overhead workers-cost soak fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## search a small CNN on digits, show it, test it (examples/quickstart.py)
	@$(BIN)/python examples/quickstart.py $(DEMO_ARGS)

test: $(INSTALLED) ## tests and doctests, but for the long ones; minutes on two cores
	$(PYTEST) $(PARALLEL) $(TESTS) $(ARGS)

test-all: $(INSTALLED) ## the long ones too, with all their cases
	TRLHPO_ALL_CASES=1 $(PYTEST) $(PARALLEL) -m "not (smac or browser or workers)" $(ARGS)

test-long: $(INSTALLED) ## the long ones alone, an eighth of their cases, and those that need data
	$(PYTEST) $(PARALLEL) -m "(slow or data) and not (smac or browser or workers)" $(ARGS)

test-lowest: ## a part, in an environment with the lowest versions of all that is needed (tests/lowest.txt)
	@$(WITH_LOWEST) test TESTS='-k "$(LOWEST_TESTS)"'

install: $(INSTALLED) ## the environment alone, with all that tests and docs need

install-lowest: ## that of test-lowest alone
	@$(WITH_LOWEST) install

test-smac: $(INSTALLED) ## those of SMAC, which is installed if it is missing
	@$(SMAC)
	$(PYTEST) $(PARALLEL) -m smac tests/baselines $(ARGS)

test-workers: $(INSTALLED) ## several processes on one study, in each kind of storage, some of them killed
	$(PYTEST) -m workers tests/workers $(ARGS)

soak-workers: $(INSTALLED) ## the same with 8 processes of 50 trials, 200 deaths, and 10,000 trials of 4 workers; hours
	TRLHPO_WORKERS=8 TRLHPO_WORKER_TRIALS=50 TRLHPO_DEATHS=200 TRLHPO_SOAK=10000 $(PYTEST) -m workers tests/workers $(ARGS)

test-browser: $(INSTALLED) ## the dashboard and the report in a headless Chromium, which must be installed
	$(PYTEST) -n 2 --dist loadfile -m browser tests/browser $(ARGS)

dist: $(INSTALLED) ## sdist and wheel in dist/, checked, and the wheel imported from a folder of its own
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target dist/installed dist/*.whl
	cd dist && PYTHONPATH=installed $(abspath $(BIN))/python -c "$(IMPORTED)"

lint: $(INSTALLED) ## ruff (rules and format) and mypy; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED) ## build the documentation into site/, every warning an error
	NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict --quiet

bench: $(INSTALLED) ## the headline table, and whether it holds; laid out for half an hour on two cores
	$(BENCHMARKS) run --protocol short --jobs $(JOBS) --out $(ROWS)/short
	@$(BENCHMARKS) report --protocol short --out $(ROWS)/short --figures $(ROWS)/figures

bench-full: $(INSTALLED) ## the same with all samplers and 100 seeds; hours on 16 cores
	@$(SMAC)
	$(BENCHMARKS) run --protocol full --jobs $(JOBS) --out $(ROWS)/full
	@$(BENCHMARKS) report --protocol full --out $(ROWS)/full --figures $(ROWS)/figures-full

bench-foreign: $(INSTALLED) ## the networks of mnist-layers in a pipeline of one's own, without a LayerSpace; half an hour
	$(BENCHMARKS) run --protocol foreign --jobs $(JOBS) --out $(ROWS)/foreign
	@$(BENCHMARKS) report --protocol foreign --out $(ROWS)/foreign --figures $(ROWS)/figures-foreign

ablate: $(INSTALLED) ## what each part of the agent is worth; hours
	$(BENCHMARKS) ablate --jobs $(JOBS) --out $(ROWS)/ablation

transfer: $(INSTALLED) ## what an earlier study saves; an hour
	$(BENCHMARKS) transfer --jobs $(JOBS) --out $(ROWS)/transfer

real: $(INSTALLED) ## searches of MNIST in which every network is trained, and what is found tested; two hours
	$(BENCHMARKS) real --form progressive --samplers trlhpo trlhpo-prior tpe random beam-growth --jobs $(JOBS) --out $(ROWS)/real

confirm: $(INSTALLED) ## what retraining the leaders of a study is worth; an hour
	$(BENCHMARKS) confirm --jobs $(JOBS) --out $(ROWS)/confirmation

pareto: $(INSTALLED) ## fronts of error against MACs; ten minutes
	$(BENCHMARKS) pareto --jobs $(JOBS) --out $(ROWS)/pareto

bench-engine: $(INSTALLED) ## the training loop against that of a PyTorch tutorial; two minutes
	$(BENCHMARKS) engine

train-less: $(INSTALLED) ## what training less saves, and what it costs in ranking; a quarter of an hour
	$(BENCHMARKS) train-less --out $(ROWS)/train-less

engine-search: $(INSTALLED) ## whole searches with and without what spares trainings; hours
	$(BENCHMARKS) engine-search --jobs $(JOBS) --out $(ROWS)/engine-search

small: $(INSTALLED) ## the best networks for small devices that five searches find, also in int8; a night
	$(BENCHMARKS) small --jobs $(JOBS) --out $(ROWS)/small

compress: $(INSTALLED) ## VGG-11, GoogLeNet and a U-Net made smaller without loss of accuracy; an hour
	$(BENCHMARKS) compress --jobs $(JOBS) --out $(ROWS)/compression

repeats: $(INSTALLED) ## how often samplers propose what has been tried, on twenty pipelines; an hour
	$(BENCHMARKS) repeats --jobs $(JOBS) --out $(ROWS)/repeats

seconds: $(INSTALLED) ## what a budget in seconds is worth; half an hour
	$(BENCHMARKS) seconds --jobs $(JOBS) --out $(ROWS)/seconds

stopping: $(INSTALLED) ## when a study without expected gain stops, and its regret then; half an hour
	$(BENCHMARKS) stopping --jobs $(JOBS) --out $(ROWS)/stopping

parallel: $(INSTALLED) ## what it costs that workers decide at the same time; two hours
	$(BENCHMARKS) parallel --jobs $(JOBS) --out $(ROWS)/parallel

reports: $(INSTALLED) ## whether reports inform later choices of the same trial; an hour
	$(BENCHMARKS) reports --jobs $(JOBS) --out $(ROWS)/reports

policy: $(INSTALLED) ## how the policy of the paper's agent improves on a synthetic problem; five minutes
	$(BENCHMARKS) policy --jobs $(JOBS) --out $(ROWS)/policy

table2: $(INSTALLED) ## Table II of the paper with real trainings, at its smallest scale; twenty minutes
	$(BENCHMARKS) table2 --jobs $(JOBS) --out $(ROWS)/table2

table2-night: $(INSTALLED) ## the same with more images, trainings and seeds; a night
	$(BENCHMARKS) table2 --scale night --jobs $(JOBS) --out $(ROWS)/table2

idioms: $(INSTALLED) ## what samplers find in ten objectives such as Optuna's examples have; twenty minutes
	$(BENCHMARKS) idioms --jobs $(JOBS) --out $(ROWS)/idioms

overhead: $(INSTALLED) ## time the sampler takes per trial
	$(BENCHMARKS) overhead

workers-cost: $(INSTALLED) ## calls, bytes and seconds a trial for up to 64 workers, simulated; a quarter of an hour
	$(BENCHMARKS) workers-cost --out $(ROWS)/workers-cost

soak: $(INSTALLED) ## many more random objectives than `make test` plays, longer studies of them, workers that take turns; two hours
	TRLHPO_PROGRAMS=500 TRLHPO_SESSIONS=2000 $(PYTEST) $(PARALLEL) -m "not (smac or browser or workers)" tests/properties/test_programs.py tests/properties/test_interleaving.py $(ARGS)

fuzz: $(INSTALLED) ## damaged checkpoints, pickles, studies, notes and networks, FUZZ times as many as the tests have
	TRLHPO_ALL_CASES=1 TRLHPO_FUZZ=$(FUZZ) $(PYTEST) $(PARALLEL) -m "not (smac or browser)" tests/properties/test_damage.py $(ARGS)

clean: ## remove caches and what was built; environments and studies stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find optuna_trlhpo examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an installation that was cut off is taken up again by the next call.
$(INSTALLED): pyproject.toml $(VERSIONS)
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) was not found; name a Python 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c '$(NEWEST_ENOUGH)' || \
	  { echo "optuna-trlhpo needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { echo "Making an environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV); the first time this takes some minutes, for torch is large"
	@$(BIN)/python -m pip install --disable-pip-version-check -e ".[$(EXTRAS)]" $(addprefix -c ,$(VERSIONS))
	@touch $@
