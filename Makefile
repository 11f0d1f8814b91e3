# SPDX-License-Identifier: GPL-2.0-or-later
# Every target does its own set-up; `make help` lists them.

PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
include packaging/packaging.mk
.PHONY: help setup fetch fmt lint type unit functional check api docs demo demo-cinder demo-migrate migrations bench faults soak fuzz lab lab-down clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## install the system packages and the Python environment that all this needs

$(READY): setup.cfg pyproject.toml lab/packages.txt lab/install-packages
	@lab/install-packages
	@echo "Python environment in $(VENV), from setup.cfg"
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@packaging/retry $(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[test,bench]'
	@touch $@

fetch: $(READY) $(BUNDLED)  ## fetch all that lab and packages take from the network
	@$(BIN)/python -m lab fetch

fmt: $(READY)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)  ## style and common mistakes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(READY)  ## types, strictly
	$(BIN)/mypy

unit: $(READY)  ## unit tests, no lab needed
	$(BIN)/pytest tests/unit

functional: fetch  ## functional tests on a lab of their own, or on the one that runs
	$(BIN)/python -m lab run -- $(BIN)/pytest tests/functional

check: lint type fetch  ## everything that has to pass before a change lands
	$(BIN)/python -m lab run -- sh -c '$(BIN)/pytest tests || $(BIN)/pytest --last-failed tests'

api: $(READY)  ## write docs/api.md from the schema
	$(BIN)/python -m vdsmcinder.rpc.apidoc > docs/api.md

docs: $(READY) $(BUNDLED)  ## write into the documentation what its commands print, where that changed
	$(BIN)/python -m lab run --hosts 1 -- $(BIN)/python -m tests.functional.walk

demo: $(READY)  ## the lab, the daemon and an engine: a Ceph-backed VM from create to destroy
	@$(BIN)/python -m lab.demo

demo-cinder: $(READY)  ## the same with a real Cinder: volumes attached, extended, snapshotted, booted
	@$(BIN)/python -m lab.demo_cinder

demo-migrate: $(READY)  ## a VM that writes goes from host to host, and a daemon is killed under way
	@$(BIN)/python -m lab.demo_migrate

bench: $(READY)  ## benchmarks, each against a rival in the same run
	$(BIN)/python -m lab run -- $(BIN)/python -m bench

faults: $(READY)  ## faults while a guest writes and an engine calls; writes docs/faults.md
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults --write

soak: $(READY)  ## VMs and disks come and go, for LAB=600 seconds in the lab; writes docs/faults.md
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults.soak --lab $(or $(LAB),600) --write

migrations: $(READY)  ## a VM that writes migrates twenty times, then while things fail; docs/faults.md
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults.migrations --trips 20
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults.migrations --write

lab: $(READY) $(BUNDLED)  ## start the lab and say how to talk to it: HOSTS=1 hypervisors
	$(BIN)/python -m lab up --hosts $(or $(HOSTS),1)

lab-down: $(READY)  ## stop the lab and leave nothing
	$(BIN)/python -m lab down

fuzz: $(READY)  ## throw at each parser what a fuzzer makes up: SECONDS=120 for each
	@packaging/retry $(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[fuzz]' \
	  || echo "without atheris, then: hypothesis does what it can"
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),120)

clean:  ## remove what was built here
	rm -rf $(VENV) build dist *.egg-info
