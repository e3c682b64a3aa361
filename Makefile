# Everything runs from .venv, which the targets make and fill when they need it. Nothing is installed outside it.
#   make PYTHON=python3.12 test    another Python for a new .venv
#   make VENV=/somewhere/else test another place for it

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
# pytest processes: one a core, and no more than two, since each compiles SMAX and may start a local Ray of its own
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); [ $$n -gt 2 ] && echo 2 || echo $$n)
SEED ?= 0
# one folder for each seed: a folder that holds a run is gone on with
RUN ?= runs/demo$(if $(filter-out 0,$(SEED)),-seed$(SEED))
LOGDIR ?= runs

BIN := $(VENV)/bin
# A stamp is newer than pyproject.toml and constraints.txt as long as .venv has what they ask for.
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
# What is there already is enough: the demo installs the tests' tools only where they are installed in any case.
INSTALLED = $(if $(wildcard $(DEV)),$(DEV),$(RUNTIME))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
# Material warns of MkDocs 2 in every build; constraints.txt pins the first (docs/decisions.md).
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check format bench docs docs-serve tensorboard clean
.DELETE_ON_ERROR:

help: ## Show this list
	@echo "perceiver-rl: a Perceiver IO entity encoder for RLlib. Needs Python 3.11+ and make, nothing else."
	@echo
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Start with 'make demo'. After it, '$(BIN)/perceiver-rl --help' has the commands that it ran."

install: $(DEV) ## Make .venv with the library, its environments and the development tools

demo: $(INSTALLED) ## Train a squad on SMAX 2s3z, evaluate it, say where to look (about 8 minutes on two cores)
	$(BIN)/perceiver-rl train configs/smax_2s3z_ppo.py --out $(RUN) \
		$(if $(wildcard $(RUN)/run.json),--resume,--seed $(SEED))
	$(BIN)/perceiver-rl evaluate $(RUN) --episodes 256 --against heuristic,random \
		--json $(RUN)/evaluation.json
	@echo
	@echo "Curves:     make tensorboard"
	@echo "Checkpoint: $(RUN)"

test: check ## Lint, check types and import directions, run all but the slow tests
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-slow: $(DEV) ## Run the slow tests, which train agents
	$(BIN)/pytest -m slow

check: $(DEV) ## Lint and check types and import directions, without running a test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## Measure this machine: env runners beside RLlib's own, the encoder beside other Perceivers and transformers
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/perceiver-rl bench encoder --quick

docs: $(DEV) ## Build the documentation into site/; a dead link is an error
	$(BIN)/mkdocs build --strict

docs-serve: $(DEV) ## Show the documentation, and build it anew whenever a page or a docstring changes
	$(BIN)/mkdocs serve

tensorboard: $(INSTALLED) ## Open the curves of every run under runs/ (LOGDIR=… for another folder)
	$(BIN)/tensorboard --logdir $(LOGDIR)

clean: ## Remove caches and build outputs; .venv and runs/ stay
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "perceiver-rl needs Python 3.11 or newer, '$(PYTHON)' is not: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One resolve for everything, so that the pin of torch holds for all that asks for it. Bytecode is left to the first import: most
# of what is installed is never imported, and compiling it takes longer than unpacking it.
$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing torch, Ray, JAX and the rest into $(VENV): some minutes"
	$(BIN)/python -m pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable '.[smax]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing torch, Ray, JAX and the rest into $(VENV): some minutes"
	$(BIN)/python -m pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable '.[smax,pettingzoo,magent,bench,export,film,docs,dev]'
	@touch $(RUNTIME) $@
