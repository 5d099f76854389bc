# The two commands of the README are `make run` and `make test`; both build .venv when it is missing.
PYTHON ?= python3
CONSTRAINTS ?= constraints/py311.txt
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help run test lint check slow bench clean

help:
	@echo "make run     grow a family of models from the text on this machine (about 10 minutes)"
	@echo "make test    lint, types, import contract, fast tests"
	@echo "make slow    the long tests and experiments"
	@echo "make bench   speed against named peers"
	@echo "make clean   remove the environment and caches (runs/ stays)"

# A stamp per set of extras, renewed when what it was made from changes.
$(VENV)/run.stamp: pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[data]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[data,dev,eval,tensorboard]'
	@touch $@ $(VENV)/run.stamp

run: $(VENV)/run.stamp
	@$(BIN)/regrow grow recipes/family.yaml --run runs/family

lint: $(VENV)/test.stamp
	$(BIN)/ruff check src tests benchmarks experiments
	$(BIN)/ruff format --check src tests benchmarks experiments
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check

check: lint

test: lint
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m slow -n 0 --timeout 3600

bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/loop_overhead.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
