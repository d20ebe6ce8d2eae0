# `make check` is what CI runs. PYTHON is the environment that has dlspec with its extra `dev`.
PYTHON ?= .venv/bin/python
# One thread a test process: two of them on two cores wait for nobody.
export OMP_NUM_THREADS = 1

.PHONY: check lint test soak

check: lint test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest -n 2 -m "not soak"

soak:
	$(PYTHON) -m pytest -m soak
