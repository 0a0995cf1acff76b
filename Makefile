# Two commands set everything up: `make demo` and `make test`. The others assume nothing either.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && { echo $$p; break; }; done)
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_FIND_LINKS
# Nothing here phones home.
export DO_NOT_TRACK = 1

BIN := .venv/bin
RUNTIME := .venv/.runtime
DEV := .venv/.dev

.PHONY: help demo test check bench up down constraints prefect clean
help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/.uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v[:2] <= (3, 13) and f"Python {v[0]}.{v[1]} found; Ferroflow needs 3.11 to 3.13. Say which: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

# --compile-bytecode: without .pyc files the first Prefect server misses its start-up limit.
$(RUNTIME): .venv/.uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --compile-bytecode --editable .
	@touch $@

$(DEV): $(RUNTIME)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --compile-bytecode --editable '.[dev]'
	@touch $@

demo: $(RUNTIME)  ## the whole loop on real data: from dirty files to a model that repaired itself
	$(BIN)/ferroflow demo

test: $(DEV)  ## all tests, and that they cover ferroflow/ (commands and servers that they start are not counted)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report= $(TESTS)
	$(BIN)/coverage report --skip-covered --skip-empty --fail-under 90

check: $(DEV)  ## style, types, contracts, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m flows.deployments --check

bench: $(DEV)  ## benchmarks, as JSON lines
	$(BIN)/python -m benchmarks loop --json

up: $(RUNTIME)  ## Prefect, a worker, MLflow and the prediction service, on loopback
	$(BIN)/ferroflow up

down: $(RUNTIME)  ## stop what `make up` started
	$(BIN)/ferroflow down

prefect: $(DEV)  ## write prefect.yaml anew from the specs
	$(BIN)/python -m flows.deployments --write

constraints: $(DEV)  ## resolve constraints.txt anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --constraint constraints.txt --no-annotate --no-header --no-emit-package triton --quiet --output-file constraints.new
	# The CUDA packages follow torch's own pins; +cpu names one machine's build.
	grep -vE '^(nvidia-(cu|nv|nc)|cuda-)' constraints.new | sed 's/+cpu$$//' > constraints.txt
	rm constraints.new

clean:  ## remove the environment and caches (never .ferroflow/)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
