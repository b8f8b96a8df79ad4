# Every target sets up .venv by itself; a machine needs Python 3.11 or 3.12, make and git.

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PYTEST_WORKERS ?= 2
PYTEST = $(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadgroup --durations 20

.PHONY: demo test test-all lint format bench catalogue clean

demo: .venv/installed
	$(BIN)/goalposts run quick

test: .venv/installed-dev
	$(PYTEST) -m "not slow and not gpu"

test-all: .venv/installed-dev
	$(PYTEST)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-dev
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/games.py

catalogue: .venv/installed
	$(BIN)/python -m goalposts.benchmark.catalogue

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Goalposts needs Python 3.11 or 3.12; name one with: make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "The venv module is missing; on Debian: apt install python3-venv"; exit 2; }

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@ .venv/installed
