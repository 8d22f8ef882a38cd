# `make` lists what can be done. Set-up happens by itself, in .venv, and is skipped when nothing changed.
PYTHON ?= python3
BIN    := .venv/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help up test test-slow lint fmt types docs lock clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: .venv/.runtime ## run the whole embedded stack (Ctrl-C ends it; ARGS="--data-dir …" for options)
	@exec $(BIN)/flagmeter up $(ARGS)

test: .venv/.dev ## all tests but the long suites (those on Kafka need Java 17 and Maven)
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: .venv/.dev ## the long suites: crashes, overload, freshness
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: .venv/.dev ## ruff, format check, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fmt: .venv/.dev ## format, and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: .venv/.dev ## write the generated pages (settings, commands, metrics)
	@$(BIN)/python -m deploy.reference

lock: .venv/.dev ## resolve the dependency list anew (names, versions and hashes; no addresses)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --upgrade --group build pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --upgrade --group build --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

clean: ## remove the virtual environment and caches; data directories stay
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .coverage* htmlcov coverage.xml

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "flagmeter needs Python 3.11 or newer; say which: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv .venv \
	  || { echo "python's venv module is missing (Debian: apt install python3-venv)"; exit 1; }

.venv/.runtime: .venv/bin/python requirements.lock pyproject.toml
	@echo "setting up .venv (once; a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "setting up the tools for tests (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
