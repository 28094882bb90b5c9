# GrantFS. `make run` shows it at work, `make test` runs the tests; both first install what the machine lacks.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# The demo's folder: 0700, not in git, and gone with the checkout.
DEMO ?= demo
# FUSE over io_uring (Linux 6.14 and later) makes the drive faster, and root has to switch it on: `make run` does, for
# this machine until it restarts. IO_URING=keep leaves the switch as it is; the drive then uses /dev/fuse.
IO_URING ?= on
# What `make fuzz` gives any bytes; without it, it says which there are.
TARGET ?=
# What `make nfs` runs in the emulated machine: arguments of pytest; without any, all that is meant for it.
TESTS ?=
# An interpreter of your choice (3.11 or later): make PYTHON=/opt/python/bin/python3
PYTHON ?=

.PHONY: help run stop install test slow mounted nfs fuzz check lint vectors policy-test bench docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

run: machine-run $(VENV)/installed  ## start the demo, everything of it in ./demo, and print a short tour
	@switch=/sys/module/fuse/parameters/enable_uring
	if [ "$(IO_URING)" = on ] && [ -w $$switch ] && [ "$$(cat $$switch)" = N ]; then
	  echo Y >$$switch
	  echo "FUSE over io_uring is on now, until this machine restarts (IO_URING=keep leaves it alone)."
	fi
	if $(BIN)/fsdriver --home $(DEMO)/agent status >/dev/null 2>&1 && kill -0 "$$(cat $(DEMO)/server.pid)" 2>/dev/null; then
	  echo "The demo in $(DEMO) runs already."
	else
	  if [ -e $(DEMO)/demo.json ]; then $(BIN)/fsdriver demo --dir $(DEMO) --stop; fi
	  $(BIN)/fsdriver demo --dir $(DEMO) --detach
	fi
	docs/tour.sh $(DEMO) $(BIN)

stop:  ## stop the demo; its files stay
	@$(BIN)/fsdriver demo --dir $(DEMO) --stop

install: machine-run $(VENV)/installed  ## the commands, in .venv/bin

test: machine-test $(VENV)/installed-dev  ## the tests: less than 15 minutes on two cores
	$(BIN)/python -m pytest

slow: machine-slow $(VENV)/installed-dev  ## the tests that take minutes each, not part of `make test`
	$(BIN)/python -m pytest -m slow

mounted: machine-test $(VENV)/installed-dev  ## only the tests that mount a drive
	$(BIN)/python -m pytest -m "mounted and not slow"

nfs: machine-nfs $(VENV)/installed-dev  ## another kernel, and a store on NFS: tests in an emulated machine; root only
	deploy/emulated/run.sh $(BIN)/python $(TESTS)

fuzz: machine-test $(VENV)/installed-fuzz  ## without end: one parser and any bytes, led by coverage (make fuzz TARGET=header)
	$(BIN)/python -m tests.fuzz $(TARGET)

check: $(VENV)/installed-dev  ## style, types and the sample policy; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/policy check policy/samples
	$(BIN)/policy test policy/samples
	$(BIN)/python docs/manpages.py --check

lint: $(VENV)/installed-dev  ## repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

vectors: $(VENV)/installed-dev  ## make the golden vectors again; git must show no difference
	$(BIN)/python -m tests.vectors.generate_content
	git diff --exit-code --stat tests/vectors

docs: $(VENV)/installed  ## write the manual pages into man/ from the commands' own help
	$(BIN)/python docs/manpages.py

policy-test: $(VENV)/installed  ## the cases in the sample policy
	$(BIN)/policy test policy/samples

bench: machine-bench $(VENV)/installed  ## compare with gocryptfs and ext4; root only, writes benchmarks/results
	$(BIN)/python -m benchmarks.canonical --save

clean:  ## stop the demo; remove it, the virtual environment and what builds and tests left
	@if [ -e $(DEMO)/demo.json ] && [ -x $(BIN)/fsdriver ]; then $(BIN)/fsdriver demo --dir $(DEMO) --stop; fi
	if mountpoint -q $(DEMO)/drive; then echo "$(DEMO)/drive is still mounted" >&2; exit 1; fi
	rm -rf --one-file-system $(DEMO) $(VENV) build dist emulated fuzz *.egg-info .coverage .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: machine-run machine-test machine-slow machine-nfs machine-bench
machine-run machine-test machine-slow machine-nfs machine-bench: machine-%:
	@deploy/machine.sh $* "$(PYTHON)"

$(BIN)/python:
	@python=$$(deploy/machine.sh python "$(PYTHON)")
	$$python -m venv --clear $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing the Python packages into $(VENV)"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing the Python packages for tests into $(VENV)"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	touch $@ $(VENV)/installed

$(VENV)/installed-fuzz: $(VENV)/installed-dev
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[fuzz]'
	touch $@
