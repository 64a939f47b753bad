# `make repro`: from nothing to a trained, tested classifier.  `make test`: every check.  `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
# Without bytecode each command would compile torch's world anew: 10 s of CPU.
unexport PYTHONDONTWRITEBYTECODE
EXTRAS := pipeline bot dev
# The build of torch, for uv's --torch-backend: cpu spares a machine without a GPU gigabytes of CUDA, auto detects a GPU.
# Without it the package index's own build is installed, which is what was tested.
TORCH_BACKEND ?=

.PHONY: help
help:  ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(READY)  ## make .venv with the locked packages

# pip takes the torch pair (and uv) first, for uv alone would fetch a second build of torch; uv is far faster for the rest.
# With a backend, uv takes the torch pair too, from where that build is.
# The lock holds constraints, not a list to install, so no platform is given another's packages.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "MLpy needs Python 3.11 or newer: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint requirements.lock $(if $(TORCH_BACKEND),,$(if $(filter pipeline,$(EXTRAS)),torch torchvision)) uv
	"$(BIN)/uv" pip install --quiet $(TORCH_BACKEND:%=--torch-backend %) --python "$(BIN)/python" --constraint requirements.lock $(EXTRAS:%=--extra %) --requirements pyproject.toml
	@touch $@

.PHONY: lock
lock: $(READY)  ## resolve pyproject.toml anew into requirements.lock, for every platform
	"$(BIN)/uv" pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate \
		--custom-compile-command 'make lock' pyproject.toml <(echo uv) --output-file requirements.lock

.PHONY: repro
repro: $(READY)  ## compose conf/, build the sample board where it is missing, run the pipeline, print the metrics
	@python -m stages.config
	dvc repro
	@sed -n '/^## Results/,/^## Failures/{/^## Failures/d;p}' models/README.md
	@echo "report: data/test/report.html   model card: models/README.md"

.PHONY: experiments
experiments: $(READY)  ## the experiments on this commit, the best validation score first
	@python -m stages.experiments list

# What `make compare` sweeps: each combination is an experiment.
POLICIES := house,people
MODELS := probe,probe_lite2,finetune,mini_xception
GROUPED := content
FOLDS := 0,1,2,3,4
JOBS := 2

.PHONY: compare
compare: $(READY)  ## MODELS on POLICIES over FOLDS of each of GROUPED, through DVC's queue; then a table
	dvc exp run --queue -S policy=$(POLICIES) -S model=$(MODELS) -S split.group_by=$(GROUPED) -S split.fold=$(FOLDS)
	dvc exp run --run-all --jobs $(JOBS)
	@python -m stages.experiments compare

.PHONY: test
test: $(READY)  ## lint, types, structure, pytest; PYTEST="-x tests/stages/test_split.py" for a part
	ruff format --check .
	ruff check .
	mypy
	lint-imports --no-cache
	deptry .
	python -m stages.config --check
	pytest $(or $(PYTEST),--numprocesses 2 --dist loadscope --no-loadscope-reorder)

.PHONY: format
format: $(READY)  ## let ruff format and mend what it can
	ruff format .
	ruff check --fix .

.PHONY: clean-cache
clean-cache: $(READY)  ## delete from the cache root what can be computed again; CLEAN=--all for what was downloaded, too
	@python -m stages.workspace.clean_cache $(CLEAN)

.PHONY: hooks
hooks: $(READY)  ## check params.yaml, format and lint at each commit; keep data in step with git
	pre-commit install
	dvc install
