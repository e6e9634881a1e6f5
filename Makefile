# `make serve` and `make test` are all the set-up there is; the rest is for people who work on the code.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test test-slow check format zoo docs site bench lock clean

serve: $(VENV)/serve.stamp
	$(BIN)/pushforward serve

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m slow

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Make the shipped bundles anew.
zoo: $(VENV)/test.stamp
	$(BIN)/python -m models.zoo

# Write the generated pages of docs/ anew.
docs: $(VENV)/test.stamp
	$(BIN)/python -m tests.docs.generated

# Build the site of docs/ into site/, with the API reference from the docstrings; a broken link fails it.
site: $(VENV)/docs.stamp
	$(BIN)/zensical build --config-file mkdocs.yml --clean --strict

# About half an hour; `make bench BENCH=--quick` takes a minute and prints only.
BENCH ?= --out docs
bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks $(BENCH)

# Write down the versions of an environment that passes the tests.
lock: $(VENV)/test.stamp
	$(BIN)/python -m pip freeze --exclude-editable | sed -e 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu,train,dev]'
	touch $@ $(VENV)/serve.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[docs]'
	touch $@
