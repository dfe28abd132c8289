# `make demo`, `make docs` and `make test` install what they need into .venv; `make test-all` tests every version.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHONS ?= $(wildcard $(foreach v,3.11 3.12 3.13,$(shell command -v python$v) $(HOME)/.pyenv/versions/$v*/bin/python$v))
VENV := .venv
BIN = $(VENV)/bin
# What pip is held to: tested versions, the lowest declared ones, or nothing (the newest).
CONSTRAINTS := constraints.txt
PIP = $(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=--constraint %)

.PHONY: demo docs test test-all tests fuzz bench clean

demo: $(VENV)/ready
	$(BIN)/sagefm demo -o demo

# The site, in docs/_build/html: its notebooks are executed, and again only where page or package changed.
docs: $(VENV)/ready
	rm -rf docs/api/generated  # pages of names that are gone
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

test: $(VENV)/ready tests docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

tests: $(VENV)/ready
	$(BIN)/pytest -n logical --dist worksteal

# Of each Python one, and only those that start: pyenv has names for versions that are not active.
test-all:
	@seen=; for python in $(PYTHONS); do \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  case " $$seen " in *" $$version "*) continue;; esac; seen="$$seen $$version"; \
	  for bounds in lowest newest; do \
	    echo "== Python $$version, $$bounds dependencies"; \
	    $(MAKE) tests PYTHON=$$python VENV=.venvs/$$version-$$bounds \
	      CONSTRAINTS=$$([ $$bounds = newest ] || echo constraints-lowest.txt) || exit; \
	  done; \
	done

# Ten thousand damaged and odd inputs, 200 kills and 200 full disks: about an hour on two cores.
fuzz: $(VENV)/ready
	$(BIN)/python -W ignore -m tests.fuzz --number 10000
	$(BIN)/python -W ignore -m tests.fuzz.interrupt --kills 200 --disks 200

bench: $(VENV)/ready
	for each in benchmarks/bench_*.py; do $(BIN)/python $$each || exit; done

clean:
	rm -rf .venv .venvs demo docs/_build docs/api/generated

# torch first and by its exact version: a plain `torch` brings gigabytes of GPU packages.
$(VENV)/ready: pyproject.toml constraints.txt constraints-lowest.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(PIP) $$(grep ^torch== $(or $(CONSTRAINTS),constraints.txt))
	$(PIP) -e ".[all]" --group dev
	touch $@
