# `make check` is what CI runs. PYTHON is the environment that has dlspec with its extra `dev`.
PYTHON ?= .venv/bin/python

.PHONY: check lint prose test soak

check: lint test

lint: prose
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

prose:
	$(PYTHON) tests/prose/check_prose.py

test:
	$(PYTHON) -m pytest -n auto -m "not soak"

soak:
	$(PYTHON) -m pytest -n auto -m soak -o faulthandler_timeout=7200
