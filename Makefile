# Every target sets up what it needs; `make help` tells them all.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

COMPONENTS := core training serving drift rollout cli demo bench cluster images
# The KServe SDK has one of its own, because it excludes MLServer's and tritonclient's.
ENVIRONMENTS := registry $(COMPONENTS) serving/tests/kserve_sdk

# The first Python 3.11 or 3.12 there is; uv never downloads another one.
PYTHON := $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13); print(sys.executable)' \
	2>/dev/null && break; done)
export UV_PYTHON := $(PYTHON)
export UV_PYTHON_DOWNLOADS := never
export PYTHONDONTWRITEBYTECODE :=
UV := $(CURDIR)/.uv/bin/uv
TABLE = $(if $(DATA),--data "$(DATA)")
DEMO_HOME := .watchkeeper/demo/system
WATCHKEEPER := cli/.venv/bin/watchkeeper
# Components whose tests `make test` leaves out.
BUT :=
# The models of `make up`: without them those of the last time, at first both. The first one
# answers gRPC clients that name no host.
MODELS :=

## the loop
.PHONY: demo
demo: environments ## close the whole loop once and stop again; MODEL=warranty-risk, or DATA=ai4i2020.csv
	demo/.venv/bin/python -m watchkeeper.demo $(MODEL) $(TABLE)

.PHONY: chaos
chaos: environments ## the same, with kill -9 of every kind of process on the way
	demo/.venv/bin/python -m watchkeeper.demo $(MODEL) --chaos $(TABLE)

.PHONY: up
up: environments ## start the system and leave it running (again: adopt what runs); MODELS="..."
	demo/.venv/bin/python -m watchkeeper.demo.seed $(MODELS) $(TABLE)
	$(WATCHKEEPER) up $(MODELS)

.PHONY: traffic
traffic: environments ## send all models requests and late labels; MODEL=..., SCENARIO=... lets things drift
	demo/.venv/bin/python -m watchkeeper.demo.traffic $(MODEL) $(TABLE) $(if $(SCENARIO),--scenario "$(SCENARIO)")

.PHONY: down
down: environments ## stop everything that up started
	$(WATCHKEEPER) down
	@# a demo that was killed leaves a system of its own
	@if [ -d $(DEMO_HOME) ]; then WATCHKEEPER_HOME=$(DEMO_HOME) $(WATCHKEEPER) down; fi

## a cluster
.PHONY: cluster
cluster: cluster/.venv/.locked ## a Kubernetes with KServe, without Docker (again: repair it); needs root and Go. KUBECONFIG: say what that one lacks
	@cluster/.venv/bin/python -m watchkeeper.cluster up

.PHONY: cluster-down
cluster-down: cluster/.venv/.locked ## end that cluster and leave nothing of it but kept builds
	@cluster/.venv/bin/python -m watchkeeper.cluster down

.PHONY: images
images: images/.venv/.locked ## build every component's image and load it into the cluster, where one runs; needs root
	@images/.venv/bin/python -m watchkeeper.images

.PHONY: chart-test
chart-test: cluster registry/.venv/.locked ## the tests of the Helm chart, its manifests and documents, before the real API server
	PATH=$(CURDIR)/.cluster/bin:$$PATH cluster/.venv/bin/python -m pytest -q -c charts/watchkeeper/tests/pytest.ini charts/watchkeeper/tests

.PHONY: manifests
manifests: cluster ## write manifests/ and the table of the chart's values anew
	PATH=$(CURDIR)/.cluster/bin:$$PATH cluster/.venv/bin/python charts/manifests.py
	cluster/.venv/bin/python charts/values_table.py

.PHONY: e2e
e2e: environments cluster ## the story on a cluster with the images: by KUBECONFIG, or the one of `make cluster`; CHAPTER=02 for one
	PYTHONPATH=tests/e2e:tests/e2e/support:tests/support demo/.venv/bin/python -m pytest -q -c tests/e2e/pytest.ini $(if $(CHAPTER),tests/e2e/chapter_$(CHAPTER)_*.py,tests/e2e)

.PHONY: cluster-test
cluster-test: cluster ## the tests on that cluster
	cluster/.venv/bin/python -m pytest -q -c cluster/pyproject.toml cluster/tests/running

.PHONY: documents-test
documents-test: environments cluster ## manifests/README.md on that cluster with the images, word for word
	PYTHONPATH=tests/e2e:tests/e2e/support:tests/support demo/.venv/bin/python -m pytest -q -c tests/e2e/pytest.ini tests/e2e/document_manifests.py

.PHONY: kind
kind: images/.venv/.locked ## a cluster by Docker and kind instead, with KServe and the images; needs docker, kind, kubectl, helm
	@images/kind

## the checks
.PHONY: test
test: environments databases ## every test; those of the components two at a time; BUT="core ..." for what was tested already
	@$(MAKE) --jobs=2 --output-sync=target $(filter-out $(BUT:%=test-%),$(COMPONENTS:%=test-%))
	@$(MAKE) test-loop

.PHONY: $(COMPONENTS:%=test-%)
$(COMPONENTS:%=test-%): test-%: environments databases
	cd $* && .venv/bin/python -m pytest -q

.PHONY: databases
databases: ## install PostgreSQL and MariaDB for the tests, where they are missing and that is possible
	@tests/support/install-databases

.PHONY: test-loop
test-loop: environments ## the tests across components, on the running system
	demo/.venv/bin/python -m pytest -q tests

.PHONY: corpus
corpus: environments ## 100,000 made-up requests, as every night; EXAMPLES=... for fewer
	cd serving && EXAMPLES=$(or $(EXAMPLES),100000) .venv/bin/python -m pytest -q tests/test_properties.py

.PHONY: soak
soak: environments ## kill -9 of server, sidecar and ledger database under load; MINUTES=10 RATE=200
	PYTHONPATH=tests/support demo/.venv/bin/python tests/soak.py \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE)) $(if $(MODEL),--model $(MODEL))

.PHONY: bench
bench: environments ## measure the serving path against its peers; ROUNDS=20 for narrower bounds
	bench/install-tools
	bench/.venv/bin/python -m watchkeeper.bench $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-docs
bench-docs: environments ## the same, and write docs/benchmarks.md
	bench/install-tools
	bench/.venv/bin/python -m watchkeeper.bench --write $(if $(ROUNDS),--rounds $(ROUNDS))

SCRIPTS := .ci/run bench/install-tools images/kind images/trim postgresql/start registry/start tests/support/install-databases

.PHONY: lint
lint: environments .venv/.locked ## style, types and layers
	for script in $(SCRIPTS); do bash -n $$script || exit 1; done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	for component in $(COMPONENTS); do \
		(cd $$component && ../.venv/bin/mypy --config-file ../pyproject.toml \
			--python-executable .venv/bin/python src/watchkeeper) || exit 1; done
	PYTHONPATH=$(subst $() ,:,$(COMPONENTS:%=%/src)) .venv/bin/lint-imports

.PHONY: format
format: .venv/.locked ## rewrite the code in the project's style
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

## the environments
.PHONY: environments
environments: $(UV) ## one environment per component, from its lock
	@+$(MAKE) --silent -j4 $(ENVIRONMENTS:%=%/.venv/.locked)

%/.venv/.locked: %/pyproject.toml %/uv.lock core/pyproject.toml | $(UV)
	@echo "environment of $*" && cd $* && $(UV) sync --quiet --locked --all-extras && touch .venv/.locked

.venv/.locked: pyproject.toml uv.lock | $(UV)
	$(UV) sync --quiet --locked && touch $@

$(UV): uv-requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed, and none is on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv --clear .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r uv-requirements.txt
	@touch $@

.PHONY: lock
lock: $(UV) ## renew every lock within the bounds of its pyproject.toml
	for folder in . $(ENVIRONMENTS); do (cd $$folder && $(UV) lock --upgrade) || exit 1; done

.PHONY: clean
clean: ## remove the environments and the state of the local system
	@if [ -x $(WATCHKEEPER) ]; then $(MAKE) down; fi
	@if [ -d .cluster ]; then $(MAKE) cluster-down; fi
	rm -rf .uv .venv $(ENVIRONMENTS:%=%/.venv) .watchkeeper

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^## / {print "\n" substr($$0, 4)} \
		/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
