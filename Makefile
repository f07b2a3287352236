# `make help` lists the targets. Everything runs in the project's own .venv.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATASET ?= mvtec
BACKBONE ?= vit_s_pypi
PRESET ?= paper
ROOT ?= $(or $(FDSL_DATA),data)/$(DATASET)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint format typecheck benchmark reproduce-table check-data clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything installed (PYTHON=python3.12, PIP_ARGS=... for another package index)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt torch torchvision -e ".[vit-s,launchers,dev]"
	@touch $@

quickstart: $(READY) ## the main job on synthetic products: train the head, test 1-shot, print the table
	$(BIN)/python train.py experiment=quickstart

test: $(READY) ## all tests
	$(BIN)/python -m pytest

lint: $(READY) ## style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(READY) ## strict types of src and datamodules
	$(BIN)/mypy

benchmark: $(READY) ## what scoring costs beside the backbone, as ratios (BACKBONE=... ARGS="win_stride=4")
	$(BIN)/python experiments/benchmark_scoring.py backbone=$(BACKBONE) --out outputs/benchmark $(ARGS)

reproduce-table: $(READY) ## the paper's table, ours beside the published rows (PRESET=paper|quick ARGS="...")
	$(BIN)/python experiments/reproduce_table.py --preset $(PRESET) $(ARGS)

check-data: $(READY) ## decode every file of a dataset (DATASET=mvtec|visa ROOT=folder)
	$(BIN)/python -m datamodules.check_data $(DATASET) $(ROOT)

clean: ## remove .venv, caches and outputs (datasets stay)
	rm -rf $(VENV) outputs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
