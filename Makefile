# What developers type; each target is one command that can be typed by hand, too.
PYTHON ?= python

.PHONY: help lint types test test-fast test-slow parity docs site bench

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

lint:            ## linter and formatter, as CI runs them
	ruff check .
	ruff format --check .

types:           ## type checker, as CI runs it
	mypy

test:            ## the default selection: CPU, offline, some minutes
	$(PYTHON) -m pytest -n 2

test-fast:       ## the engine, training and evaluation on micro models: what to run while working
	$(PYTHON) -m pytest -m core -x -q

test-slow:       ## what the default leaves out for its time
	$(PYTHON) -m pytest -m slow

parity:          ## the golden cases: numbers of the original implementation
	$(PYTHON) tests/parity.py tests/golden

docs:            ## pages and tables that are made from the code
	$(PYTHON) docs/make_tables.py

site:            ## the pages as a site below build/site (extra docs); `mkdocs serve` shows it while you write
	mkdocs build --strict

bench:           ## seconds and memory, pruned against un-pruned, as ratios of one run
	$(PYTHON) -m gp.bench prefill --preset mid --repeats 3
	$(PYTHON) -m gp.bench train --preset mid --repeats 3
