# Every target installs what it needs. `make help` lists the targets.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Most projects share the environment at the root; docs/architecture.md says why three do not.
PROJECTS := core registry ledger pipeline platforms training rollout cli \
	dev/demo dev/cluster dev/images $(wildcard models/*)
APART := serving drift dev/bench
LOCKS := . serving drift images/mlflow
# What `make test` runs, by the last part of its folder; `models` stands for all of models/.
TESTED := core registry ledger pipeline platforms training serving drift rollout cli models \
	demo bench cluster images

# The projects of `make check`: without a cluster, and without a database server; the few tests of
# models/ that need one are skipped if it is missing.
QUICK := core pipeline rollout models demo images

# The first Python 3.11 or 3.12 on the PATH; uv never downloads another one.
PYTHON := $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13); print(sys.executable)' \
	2>/dev/null && break; done)
export UV_PYTHON := $(PYTHON)
export UV_PYTHON_DOWNLOADS := never
export PYTHONDONTWRITEBYTECODE :=
# Some tests import ONNX Runtime themselves.
export ORT_DISABLE_TELEMETRY := 1
UV := $(CURDIR)/.uv/bin/uv
LOOPS := serving/src/watchkeeper/serving/compiled/forest_loops
TABLE = $(if $(DATA),--data "$(DATA)")
DATABASES = $(if $(SOURCE),--source "$(SOURCE)") $(if $(LEDGER),--ledger "$(LEDGER)")
DEMO_HOME := .watchkeeper/demo/system
WATCHKEEPER := .venv/bin/watchkeeper
# The models of `make up`. Empty: the models of the last `make up`, or else all of models/.
# The first model answers gRPC clients that do not name a host.
MODELS :=

## the loop
.PHONY: demo
demo: environments ## run the whole loop once and stop again; MODEL=... for another model, DATA=table.csv, SOURCE=, LEDGER= URLs
	.venv/bin/python -m watchkeeper.demo $(MODEL) $(TABLE) $(DATABASES)

.PHONY: demos
demos: environments ## the demo of each model in models/, one after the other
	for model in $$(.venv/bin/python -c "from watchkeeper.demo.plants import simulated; print(*simulated())"); do \
	  .venv/bin/python -m watchkeeper.demo $$model || exit 1; \
	done

.PHONY: chaos
chaos: environments ## run the loop while every kind of process is killed with kill -9
	.venv/bin/python -m watchkeeper.demo $(MODEL) --chaos $(TABLE)

.PHONY: up
up: environments ## start the system and leave it running; a second run adopts it; MODELS="..."
	.venv/bin/python -m watchkeeper.demo.seed $(MODELS) $(TABLE)
	$(WATCHKEEPER) up $(MODELS)

.PHONY: traffic
traffic: environments ## send requests and late labels to all models; MODEL=..., SCENARIO=... for drift
	.venv/bin/python -m watchkeeper.demo.traffic $(MODEL) $(TABLE) $(if $(SCENARIO),--scenario "$(SCENARIO)")

.PHONY: down
down: ## stop everything that `make up` started
	@test -x $(WATCHKEEPER) || { echo "no environment is installed here, so nothing runs" >&2; exit 1; }
	$(WATCHKEEPER) down
	@# A demo that was killed has left a system of its own.
	@if [ -d $(DEMO_HOME) ]; then WATCHKEEPER_HOME=$(DEMO_HOME) $(WATCHKEEPER) down; fi

## a cluster
.PHONY: cluster
cluster: dev/cluster/.venv/.locked ## start Kubernetes with KServe without Docker; needs root and Go. With KUBECONFIG: list what that cluster lacks
	@dev/cluster/.venv/bin/python -m watchkeeper.cluster up

.PHONY: cluster-down
cluster-down: dev/cluster/.venv/.locked ## stop that cluster and remove all of it but the cached builds
	@dev/cluster/.venv/bin/python -m watchkeeper.cluster down

.PHONY: images
images: dev/cluster/.venv/.locked ## build every image, and load it into the cluster if one runs; needs root
	@dev/cluster/.venv/bin/python -m watchkeeper.images

.PHONY: chart-test
chart-test: cluster images/mlflow/.venv/.locked ## test the Helm chart, its manifests and documents against a real API server
	PATH=$(CURDIR)/.cluster/bin:$$PATH .venv/bin/python -m pytest -q $(TWO_FILES) -c charts/watchkeeper/tests/pytest.ini charts/watchkeeper/tests

.PHONY: manifests
manifests: cluster ## generate manifests/ and the table of the chart's values
	PATH=$(CURDIR)/.cluster/bin:$$PATH .venv/bin/python charts/manifests.py
	.venv/bin/python charts/values_table.py

.PHONY: e2e
e2e: environments cluster ## run the end-to-end scenarios on a cluster with the images (KUBECONFIG, or `make cluster`); SCENARIO="02 04" for some
	.venv/bin/python -m pytest -q -c tests/e2e/pytest.ini $(if $(SCENARIO),$(SCENARIO:%=tests/e2e/test_%_*.py),tests/e2e)

.PHONY: cluster-test
cluster-test: cluster ## test that cluster itself
	.venv/bin/python -m pytest -q -c dev/cluster/pyproject.toml dev/cluster/tests/running

.PHONY: documents-test
documents-test: environments cluster ## run the commands of docs/how-to/install.md and manifests/README.md on that cluster with the images
	.venv/bin/python -m pytest -q -c tests/e2e/pytest.ini tests/e2e/test_install_page.py tests/e2e/test_manifests_readme.py

.PHONY: changes-test
changes-test: environments cluster ## test on that cluster what comes back after people have changed it with kubectl
	.venv/bin/python -m pytest -q -c tests/e2e/pytest.ini tests/e2e/test_changes_by_hand.py

.PHONY: kind
kind: dev/cluster/.venv/.locked ## start a cluster with Docker and kind instead, with KServe and the images; needs docker, kind, kubectl, helm
	@dev/images/kind

## the checks
.PHONY: test
test: environments databases ## run every test that needs no cluster, two projects at a time
	@status=0; \
	$(MAKE) --jobs=2 --keep-going --output-sync=target $(TESTED:%=test-%) || status=$$?; \
	$(MAKE) test-loop && exit $$status

# Options of pytest for the tests of the running system.
LOOP :=

# Two files of tests at a time, each in a process: for tests that mostly wait for a system or a cluster.
TWO_FILES := -n 2 --dist=loadfile --no-loadscope-reorder

# For example: make test-rollout TESTS="tests/test_phases.py -k canary"
TESTS :=
PYTEST := $(CURDIR)/.venv/bin/python -m pytest -q
WITH_DATABASES := ledger platforms training drift
IN_WORKSPACE := core registry ledger pipeline platforms training rollout cli

# The projects whose tests start PostgreSQL or MariaDB (the plugin tests/support/databases.py).
$(WITH_DATABASES:%=test-%): databases

.PHONY: $(TESTED:%=test-%)
$(IN_WORKSPACE:%=test-%): test-%: environments ## test one project, here core; TESTS=... for some tests
	cd $* && $(PYTEST) $(TESTS)

test-demo test-cluster test-images: test-%: environments
	cd dev/$* && $(PYTEST) $(TESTS)

test-serving test-drift: test-%: environments
	cd $* && .venv/bin/python -m pytest -q $(TESTS)

test-bench: environments
	cd dev/bench && $(CURDIR)/serving/.venv/bin/python -m pytest -q $(TESTS)

test-models: environments
	@for model in models/*; do (cd $$model && $(PYTEST) $(TESTS)) || exit 1; done

.PHONY: check
check: lint ## what a change must pass before a review, in under ten minutes: lint, types, unit tests
	@$(MAKE) --jobs=2 --output-sync=target $(QUICK:%=test-%)

.PHONY: databases
databases: ## install PostgreSQL and MariaDB for the tests, if they are missing
	@tests/support/install-databases

.PHONY: test-loop
test-loop: environments ## test the running system across components; LOOP="-m nightly" for the slow tests only
	.venv/bin/python -m pytest -q $(TWO_FILES) $(LOOP) tests

.PHONY: corpus
corpus: environments ## send 100,000 generated requests to the server, as the nightly workflow does; EXAMPLES=...
	cd serving && EXAMPLES=$(or $(EXAMPLES),100000) .venv/bin/python -m pytest -q tests/test_properties.py

.PHONY: soak
soak: environments ## kill server, sidecar and ledger database under load; MINUTES=10 RATE=200
	PYTHONPATH=tests/support .venv/bin/python tests/soak.py \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE)) $(if $(MODEL),--model $(MODEL))

.PHONY: bench
bench: environments ## measure the request path and its peers; ROUNDS=20 for narrower intervals
	dev/bench/install-tools
	serving/.venv/bin/python -m watchkeeper.bench $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-training
bench-training: environments ## measure time and memory of training runs by the rows of their tables, and write the page; ROWS="300000" measures others
	.venv/bin/python training/benchmarks/large_tables.py $(ROWS)

.PHONY: bench-docs
bench-docs: environments ## measure, and write the benchmark page of the documentation
	dev/bench/install-tools
	serving/.venv/bin/python -m watchkeeper.bench --write $(if $(ROUNDS),--rounds $(ROUNDS))

SCRIPTS := .ci/run dev/bench/install-tools dev/images/kind images/trim images/on-change images/postgresql/start images/postgresql/client images/postgresql/backup images/postgresql/restore images/mlflow/start tests/support/install-databases

.PHONY: lint
lint: environments ## check style, types, layers and locks
	for script in $(SCRIPTS); do bash -n $$script || exit 1; done
	for folder in $(LOCKS); do (cd $$folder && $(UV) lock --check --quiet) || exit 1; done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(PROJECTS:%=%/src) dev/docs
	.venv/bin/mypy --python-executable serving/.venv/bin/python serving/src dev/bench/src
	.venv/bin/mypy --python-executable drift/.venv/bin/python drift/src
	PYTHONPATH=$(subst $() ,:,$(APART:%=%/src)) .venv/bin/lint-imports
	.venv/bin/python dev/docs/reference.py --check

.PHONY: docs
docs: environments ## build the documentation site into .site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet --site-dir $(CURDIR)/.site

.PHONY: reference
reference: environments ## generate the reference pages of the documentation from the code
	.venv/bin/python dev/docs/reference.py

.PHONY: format
format: environments ## format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

## the environments
.PHONY: environments
environments: $(UV) ## the environment at the root, and those of serving, drift, MLflow and the cluster, from their locks
	@+$(MAKE) --silent -j4 .venv/.locked dev/cluster/.venv/.locked \
		serving/.venv/.locked drift/.venv/.locked images/mlflow/.venv/.locked $(LOOPS).so

.venv/.locked: pyproject.toml uv.lock $(PROJECTS:%=%/pyproject.toml) | $(UV)
	@echo "environment of the workspace" && $(UV) sync --quiet --locked && touch $@

# The cluster's Envoy is of another release than that of this machine.
dev/cluster/.venv/.locked: pyproject.toml uv.lock dev/cluster/pyproject.toml | $(UV)
	@echo "environment of dev/cluster" && UV_PROJECT_ENVIRONMENT=dev/cluster/.venv $(UV) sync --quiet --locked \
		--package watchkeeper-images --package watchkeeper-cluster --extra proxy && touch $@

%/.venv/.locked: %/pyproject.toml %/uv.lock $(PROJECTS:%=%/pyproject.toml) dev/bench/pyproject.toml | $(UV)
	@echo "environment of $*" && cd $* && $(UV) sync --quiet --locked && touch .venv/.locked

# uv does not notice that the library was deleted, as `git clean` does.
$(LOOPS).so: $(LOOPS).c serving/build_loops.py | serving/.venv/.locked
	@cd serving && $(UV) sync --quiet --locked --reinstall-package watchkeeper-serving

$(UV): uv-requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed, and none is on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv --clear .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r uv-requirements.txt
	@touch $@

.PHONY: lock
lock: $(UV) ## upgrade every lock within the bounds of its pyproject.toml
	for folder in $(LOCKS); do (cd $$folder && $(UV) lock --upgrade) || exit 1; done

.PHONY: clean
clean: ## remove the environments and the state of the local system
	@if [ -x $(WATCHKEEPER) ]; then $(MAKE) down; fi
	@if [ -d .cluster ]; then $(MAKE) cluster-down; fi
	rm -rf .uv .venv .site serving/.venv drift/.venv dev/cluster/.venv images/mlflow/.venv .watchkeeper

.PHONY: help
help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^## / {print "\n" substr($$0, 4)} \
		{sub(/^\$$\(IN_WORKSPACE[^:]*:[^)]*\)/, "test-core")} \
		/^[a-z0-9-]+:.*## / {sub(/:.*/, "", $$1); printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
