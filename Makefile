# make demo   the main job on the embedded pack, from nothing to a result page
# make test   all tests
# make check  lint, types, tests
# make tables TEST=FOLDER TRAIN=FOLDER   the tables that a user decides by, from clean aligned faces, into docs/tables; hours
#
# Each creates .venv and installs the locked versions if that has not been done. PYTHON=... picks the interpreter.

PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= demo-result

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
EXE := .exe
else
BIN := $(VENV)/bin
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint types check tables lock clean

help:
	@sed -n 's/^# make /make /p' $(firstword $(MAKEFILE_LIST))

# Stamps: nothing is installed again before a lock, the project file or the version changes.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: requirements.lock pyproject.toml small/pyproject.toml adapt/_version.py $(VENV)/.created
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable . --editable ./small
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.lock
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/adapt demo -o $(DEMO)

# Two workers with one thread each: the tests are many small computations, which more threads slow down.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python$(EXE)

check: lint types test

tables: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/tables.py $(TEST) $(TRAIN)

# For whoever changes the dependencies; needs uv.
EXPORT := uv export --quiet --frozen --no-emit-project --no-hashes --no-annotate --no-header
HEADER := "\# Exported from uv.lock by \`make lock\`, without hashes, so that another build of torch may stand in."

lock:
	uv lock --upgrade --no-config
	{ echo $(HEADER); $(EXPORT); } > requirements.lock
	{ echo $(HEADER); $(EXPORT) --extra all --extra dev; } > requirements-dev.lock

clean:
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .ruff_cache
