# Two commands do everything: `make demo` and `make test`. Both install what they need into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test bench clean

demo: .venv/ready
	$(BIN)/sagefm demo -o demo

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest

bench: .venv/ready
	for each in benchmarks/bench_*.py; do $(BIN)/python $$each || exit; done

clean:
	rm -rf .venv demo

# torch first and by its exact version: a plain `torch` brings gigabytes of GPU packages.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[evaluate,perturb]" --group dev
	touch $@
