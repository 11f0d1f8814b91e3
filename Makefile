# SPDX-License-Identifier: GPL-2.0-or-later
# Every target does its own set-up; `make help` lists them.

PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# A stamp for the packages that tests install, and what these are made of.
RELEASES := build/releases
PACKAGED = $(shell git ls-files Makefile README.md CHANGELOG.md LICENSE vdsm-cinder.spec \
	docs monitoring packaging systemd vdsmcinder cinderengine)
# A worker for each lab (tests/spread.py). Forty failures have one cause, and more would not tell more.
SPREAD := -n auto --no-loadscope-reorder --maxfail=40 --durations=25
# A worker that has nothing left takes some of what the other has.
UNIT := -n 2 --dist worksteal tests/unit tests/engine/unit
# In order; what `make check` leaves out.
NIGHTLY := unit-random unit-pythons audit installed judges fuzz migrations faults soak demo demo-cinder demo-migrate demo-engine rpmlint
# Those of EL 9, Debian 12 and EL 10.
PYTHONS := 3.9 3.11 3.12
# Empty: the faults' tables are printed and docs/faults.md stays as it is.
WRITE := --write

.DEFAULT_GOAL := help
include packaging/packaging.mk
.PHONY: help setup fetch fmt lint type unit unit-pythons coverage check-fast functional judges installed check nightly unit-random api rest docs demo demo-cinder demo-migrate demo-engine migrations bench faults soak fuzz lab lab-down clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## install the system packages and the Python environment that all this needs

$(READY): setup.cfg pyproject.toml lab/packages.txt lab/install-packages
	@lab/install-packages
	@echo "Python environment in $(VENV), from setup.cfg"
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@packaging/retry $(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[engine,test,engine-test,check,bench]'
	@touch $@

# Two releases of the packages, for tests that install one and upgrade to the other.
$(RELEASES): $(BUNDLED) $(wildcard $(PACKAGED))
	@$(MAKE) --no-print-directory rpm DIST=.1
	@$(MAKE) --no-print-directory rpm DIST=.2
	@touch $@

fetch: $(READY)  ## fetch all that lab and packages take from the network
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
	$(BIN)/pytest $(UNIT)

unit-pythons: $(READY) $(BUNDLED)  ## unit tests on each Python that hosts have, with what packages bundle
	@$(PYTHON) -m tests.pythons $(PYTHONS)

# Not enforced: a line that is run is not yet a line that is tested.
coverage: $(READY)  ## the lines that no unit test runs, by file
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/coverage run -m pytest -q $(UNIT)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --show-missing

check-fast: lint type unit  ## what needs no lab: style, types, unit tests

functional: fetch $(RELEASES)  ## functional tests on two labs of their own, or on the one that runs
	$(BIN)/python -m lab run --labs 2 -- $(BIN)/pytest $(SPREAD) -m 'not nightly' tests/functional tests/engine/functional tests/faults

judges: fetch $(RELEASES)  ## all tests of the engine that need a lab, its clients' among them
	$(BIN)/python -m lab run --labs 2 -- $(BIN)/pytest $(SPREAD) tests/engine/functional

installed: fetch $(RELEASES)  ## all tests of the daemon as a package, for each way of installing it
	$(BIN)/python -m lab run --labs 2 -- $(BIN)/pytest $(SPREAD) tests/functional/test_systemd.py

check: check-fast  ## everything that has to pass before a change lands
	@$(MAKE) --no-print-directory functional

nightly: fetch  ## what takes too long for every change, each part told of at the end
	@$(BIN)/python -m tests.nightly $(MAKE) $(NIGHTLY)

unit-random: $(READY)  ## unit tests with other examples than those of every other run
	HYPOTHESIS_PROFILE=random $(BIN)/pytest $(UNIT)

api: $(READY)  ## write docs/api.md from the schema
	$(BIN)/python -m vdsmcinder.rpc.schema.apidoc > docs/api.md

rest: $(READY)  ## write docs/rest.md from the tables of the engine's REST API
	$(BIN)/python -m cinderengine.api.resources.restdoc > docs/rest.md

docs: $(READY)  ## write into the documentation what its commands print, where that changed
	$(BIN)/python -m lab run --hosts 1 -- $(BIN)/python -m tests.functional.walk

demo: $(READY)  ## the lab, the daemon and an engine: a Ceph-backed VM from create to destroy
	@$(BIN)/python -m lab.demo.__main__

demo-cinder: $(READY)  ## the same with a real Cinder: volumes attached, extended, snapshotted, booted
	@$(BIN)/python -m lab.demo.cinder

demo-migrate: $(READY)  ## a VM that writes goes from host to host, and a daemon is killed under way
	@$(BIN)/python -m lab.demo.migrate

demo-engine: $(READY)  ## a host joins the engine, and oVirt's own client has disks made: CINDER=1
	@CINDER=$(CINDER) $(BIN)/python -m lab.demo.engine

bench: $(READY)  ## benchmarks, each against a rival in the same run
	$(BIN)/python -m lab run -- $(BIN)/python -m bench

faults: $(READY)  ## faults while a guest writes and an engine calls; writes docs/faults.md
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults $(WRITE)

soak: $(READY)  ## VMs and disks come and go, for LAB=600 seconds in the lab; writes docs/faults.md
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults.soak --lab $(or $(LAB),600) $(WRITE)

migrations: $(READY)  ## a VM that writes migrates twenty times, then while things fail; docs/faults.md
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults.migrations --trips 20
	$(BIN)/python -m lab run -- $(BIN)/python -m tests.faults.migrations $(WRITE)

lab: $(READY)  ## start the lab and say how to talk to it: HOSTS=1 hypervisors
	$(BIN)/python -m lab up --hosts $(or $(HOSTS),1)

lab-down: $(READY)  ## stop the lab and leave nothing
	$(BIN)/python -m lab down

fuzz: $(READY)  ## throw at each parser what a fuzzer makes up: SECONDS=120 for each
	@packaging/retry $(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[fuzz]' \
	  || echo "without atheris, then: hypothesis does what it can"
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),120)

clean:  ## remove what was built here
	rm -rf $(VENV) build dist *.egg-info
