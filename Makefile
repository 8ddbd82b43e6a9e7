# Two commands from a bare clone: `make demo` and `make test`. Each creates .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test quick check lint format types docs matrix release clean

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch torchvision
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)  ## train teacher, student, KD and TRG on handwritten digits; table and picture in demo_output/
	$(BIN)/trg-torchdistill demo

test: $(STAMP)  ## the whole test suite, a file of tests a core at a time
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

quick: $(STAMP)  ## the tests but those that take seconds each
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'not slow'

check: lint types docs test  ## everything CI runs

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## the site, in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html

matrix:  ## the test suite over Python, torch and torchdistill: hours, and 7 GB at a time; not in CI
	$(PYTHON) tools/matrix.py

release:  ## builds and tries what would be uploaded, in an empty environment; TORCH=PYTHON lends that of another one
	$(PYTHON) tools/release.py $(if $(TORCH),--torch $(TORCH))

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info
