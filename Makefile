# `make serve` and `make test` are all the set-up there is; the rest is for people who work on the code.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test browser pictures test-slow test-lowest coverage mutants faults check format zoo docs site bench lock clean

serve: $(VENV)/serve.stamp
	$(BIN)/pushforward serve

# Set, it would hide what is lost when a process ends without flushing.
unexport PYTHONUNBUFFERED

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 2

# What the tests of the console need: a real Chromium, of the system, and what drives it. Where they are missing,
# `make test` leaves these tests out, and says so.
browser: $(VENV)/browser.stamp
	@command -v chromium chromium-browser google-chrome || \
		if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install --yes --no-install-recommends chromium; \
		else sudo apt-get update -qq && sudo apt-get install --yes --no-install-recommends chromium; fi

# Take the pictures of docs/console/ anew.
pictures: $(VENV)/browser.stamp
	$(BIN)/python -m tests.browser.pictures

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 2 -m slow --timeout 3600

# The lowest versions that pyproject.toml allows, in an environment of their own, hold for serving, the client, export
# and training. Old releases may warn of what has been deprecated since: that alone is no error here.
LOWEST := $(VENV)/lowest
test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) tests/packaging/lowest.py > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --prefer-binary \
		--requirement $(LOWEST)/requirements.txt --editable .
	$(LOWEST)/bin/python -m pytest -n 2 -W default::DeprecationWarning -W default::PendingDeprecationWarning \
		$(SLICE)

SLICE := tests/service/http tests/service/api/codecs tests/service/api/test_openapi.py tests/service/engine/runtime \
	tests/service/engine/test_canary.py tests/service/engine/test_registry.py tests/service/bundle \
	tests/service/process/test_server.py tests/service/test_streaming.py tests/pushforward/client \
	tests/pushforward/cli tests/pushforward/commands/test_train.py tests/pushforward/commands/test_sample.py \
	tests/models/test_recipe.py tests/models/export tests/models/importing/test_load.py tests/laws/test_zoo.py

# The share of the lines that the tests run, the servers that they start included.
coverage: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered

# The share of a sample of mutants of the code that the tests kill; an hour or two. After new tests,
# `make mutants MUTANTS=--again` judges the survivors anew.
mutants: $(VENV)/mutants.stamp
	nice -n 10 $(BIN)/python -m tests.mutants $(MUTANTS)

# What is done to a server on purpose, and what must hold: an hour or two. `make faults FAULTS="ends --share 0.1"` runs a
# part of one scenario, `make faults FAULTS=--write` writes the table into docs/reliability.md.
faults: $(VENV)/faults.stamp
	$(BIN)/python -m tests.faults $(FAULTS)

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

$(VENV)/mutants.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu,train,dev,mutants]'
	touch $@ $(VENV)/test.stamp $(VENV)/serve.stamp

$(VENV)/faults.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu,train,dev,faults]'
	touch $@ $(VENV)/test.stamp $(VENV)/serve.stamp

$(VENV)/browser.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu,train,dev,browser]'
	touch $@ $(VENV)/test.stamp $(VENV)/serve.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[docs]'
	touch $@
