# make demo and make test do everything a newcomer needs; the rest is for those who work on it.
SHELL := /usr/bin/env bash
PY := .venv/bin/python
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# Hundreds of test processes import the same files; an environment may forbid to compile them once.
export PYTHONDONTWRITEBYTECODE :=
# Test files that run at once; each has its own stores, servers and ports. Many wait for processes
# they have started: four keep two cores busy.
TEST_PROCESSES ?= 4

.PHONY: install data demo repro test test-backends lint docs-check bench clean

install:
	@scripts/install.sh

data: data/demo/train.jsonl

data/demo/train.jsonl: $(wildcard data/generators/*.py) | install
	@$(PY) -m data.generators --out data/demo

demo: data
	@.venv/bin/swift run recipes/demo.yaml

repro: install
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/dvc repro

test: data
	@$(PY) -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# The tests with real tools, each in its own environment; the first time installs them.
BACKENDS ?= all
test-backends: data
	@SWIFTCORE_TEST_BACKENDS="$(BACKENDS)" $(PY) -m pytest -q -m backend

lint: install
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/lint-imports
	@.venv/bin/pyright swiftcore tasks flows
	@.venv/bin/codespell swiftcore tasks flows docs recipes *.md

docs-check: data
	@$(PY) -m pytest -q tests/test_docs.py

bench: install
	@$(PY) bench/overhead.py

clean:
	@rm -rf .swift artifacts data/demo/*.jsonl
