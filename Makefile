# make demo   load three bundled sources on an embedded Postgres
# make drop   put a file into a bucket, and see its rows come by a sensor
# make dev    the same services, with Dagster's UI on 127.0.0.1:3000
# make test   everything the tests need, then all of them
# make lint   formatter, linter, types, layers, unused dependencies
# make bench  benchmarks, as ratios
# make soak   20,000 damaged files, each read without loss or refused with a clear error
.DEFAULT_GOAL := help
.PHONY: help demo drop dev test lint bench soak clean

SHELL := /bin/bash
PYTHON ?= python3
# uv as it is installed, else one of our own in .tools
UV := $(shell command -v uv || echo .tools/bin/uv)
WORKERS ?= 2

help:
	@sed -n 's/^# make /  make /p' Makefile

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'

.venv/.run: pyproject.toml uv.lock
	@test -x "$(UV)" || $(MAKE) --no-print-directory .tools/bin/uv
	$(UV) sync --locked --no-dev --inexact --compile-bytecode --quiet
	@.venv/bin/python -m compileall -q identity_pipeline
	@touch $@

.venv/.dev: pyproject.toml uv.lock
	@test -x "$(UV)" || $(MAKE) --no-print-directory .tools/bin/uv
	$(UV) sync --locked --compile-bytecode --quiet
	@.venv/bin/python -m compileall -q identity_pipeline
	@touch .venv/.run $@

demo: .venv/.run
	@.venv/bin/python -m identity_pipeline.demo

drop: .venv/.run
	@.venv/bin/python -m identity_pipeline.demo drop

dev: .venv/.run
	@.venv/bin/python -m identity_pipeline.demo dev

test: .venv/.dev
	@.venv/bin/python -m identity_pipeline_tests.node
	@.venv/bin/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder -q

soak: .venv/.dev
	@.venv/bin/python -m identity_pipeline_tests.readers.files.mutants

lint: .venv/.dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports
	.venv/bin/deptry .

bench: .venv/.dev
	@.venv/bin/python -m benchmarks
	@.venv/bin/python -m benchmarks.api
	@.venv/bin/python -m benchmarks.sql
	@.venv/bin/python -m benchmarks.files

clean:
	-.venv/bin/identity-pipeline db stop
	rm -rf .venv .tools .identity
