# Every target sets up what it needs, in .venv, from the locks in requirements/. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# The Python that .venv is made with, 3.11 or newer. Used once, when .venv is made.
PYTHON ?= python3
# Passed on to the command a target runs, e.g. make test ARGS="-x -k photos".
ARGS ?=
# What `make test` runs.
TESTS ?= tests/unit tests/simulation tests/contract
# In how many processes; 0 runs them in this one, for a debugger.
PROCESSES ?= 2
# Workspace and manifest of the demo.
DEMO_WORKSPACE ?= .demo
DEMO_MANIFEST ?= examples/robot.yaml

BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
LOCKS := requirements/uv.txt requirements/dev.txt runtime/pyproject.toml operator/pyproject.toml plugin/pyproject.toml
# Named after what is in the locks: as long as they stay the same, the set-up takes no time.
ENV := .venv/.ready-$(shell cat $(LOCKS) | git hash-object --stdin)
# Large files over slow lines; progress for people, silence for logs.
export UV_HTTP_TIMEOUT ?= 180
QUIET := $(shell test -t 2 || echo --quiet)
CODE := $(wildcard runtime operator plugin tools tests bench)

##@ Start here

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z][a-z0-9-]*:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(ENV) ## Fine-tune the built-in model on the robot's photos, here, without a GPU
	$(BIN)/dreambooth run $(DEMO_MANIFEST) --workspace $(DEMO_WORKSPACE) $(ARGS)
	@find $(DEMO_WORKSPACE)/jobs -name contact-sheet.png -o -name report.html | sed 's/^/Look at: /'

.PHONY: setup
setup: $(ENV) ## Only set up .venv (all other targets do it on their own)

##@ Check a change

.PHONY: test
test: $(ENV) ## Run the tests, with coverage of runtime and operator
	$(BIN)/pytest -m "not crash" --cov --cov-report=term --numprocesses=$(PROCESSES) --dist=worksteal $(TESTS) $(ARGS)

.PHONY: test-crash
test-crash: $(ENV) ## Run the tests that kill real processes at random moments (slow)
	$(BIN)/pytest -m crash $(TESTS) $(ARGS)

.PHONY: test-gpu
test-gpu: $(ENV) ## Run the tests that need a GPU, and print the kernels' times
	$(BIN)/pytest -s tests/gpu $(ARGS)

.PHONY: verify
verify: $(ENV) ## Check all that needs no run: style, types, imports, generated files, locks, licences
	@$(MAKE) --keep-going lint types imports drift

.PHONY: lint
lint: $(ENV) ## Check style and formatting
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

.PHONY: types
types: $(ENV) ## Check types, strictly
	$(BIN)/mypy $(CODE)

.PHONY: imports
imports: $(ENV) ## Check which part may import which
	PYTHONPATH=runtime:operator:plugin $(BIN)/lint-imports

.PHONY: drift
drift: $(ENV) ## Check that generated files, locks and licence notices are up to date
	$(BIN)/python -m tools.generate --check
	$(BIN)/python -m tools.locks --check
	$(BIN)/python -m tools.licences

##@ Make

.PHONY: format
format: $(ENV) ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: generate
generate: $(ENV) ## Make the generated files anew: copies of the API, its reference
	$(BIN)/python -m tools.generate

.PHONY: generate-chart
generate-chart: ## Make the Helm chart's README anew (needs Go, once)
	"$$(python3 tools/cluster binaries helm-docs | sed -n 's/^helm-docs //p')" --chart-search-root=charts --sort-values-order=file --log-level=error

.PHONY: lock
lock: $(ENV) ## Lock the dependencies anew; ARGS=--upgrade takes newer versions
	$(RUN) python -m tools.locks $(ARGS)

.PHONY: wheel
wheel: $(ENV) ## Build the runtime's wheel into dist/
	$(RUN) uv build --quiet --wheel --no-build-isolation --out-dir dist runtime
	@ls -l dist/*.whl

.PHONY: clean
clean: ## Remove what was built, cached and drawn; keep .venv
	rm -rf $(DEMO_WORKSPACE) dist build .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove .venv as well
	rm -rf .venv

##@ Measure

.PHONY: bench-quality
bench-quality: $(ENV) ## Score what is learned and what is kept, on held-out poses (docs/quality.md)
	$(BIN)/python -m bench.quality $(ARGS)

.PHONY: bench-cpu
bench-cpu: $(ENV) ## Time and memory of each stage of the demo's job on this machine
	$(BIN)/python -m bench.cpu $(ARGS)

.PHONY: bench-gpu
bench-gpu: $(ENV) ## Speed, memory and numerics on one GPU, beside the notebook and the limit (docs/performance.md)
	PYTHONPATH=runtime:. $(BIN)/python -m bench.gpu $(ARGS)

.PHONY: bench-gpu-scaling
bench-gpu-scaling: $(ENV) ## Training, class images and recovery on two GPUs of one machine (docs/performance.md)
	PYTHONPATH=runtime:. $(BIN)/python -m bench.gpu_scaling $(ARGS)

.PHONY: bench-operator
bench-operator: $(ENV) ## Time, CPU and memory of the operator with 1, 100 and 1,000 jobs (docs/performance.md)
	PYTHONPATH=runtime:operator:tools/cluster:. $(BIN)/python -m bench.operator_scale $(ARGS)

##@ The built-in model

.PHONY: model-data
model-data: $(ENV) ## Build the data set of the built-in model; training it: tools/model/README.md
	$(BIN)/python -m tools.model pictures .cache/model/data $(ARGS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	  --dest .cache/model/wheels "$$(sed -n 's/^\(diffusers==[^ ]*\).*/\1/p' requirements/runtime.txt)"

.PHONY: model-score
model-score: $(ENV) ## Score and draw the shipped model as the recipe does (needs model-data)
	$(BIN)/python -m tools.model grid runtime/dreambooth/models/builtin/emoji build/model/grid.webp
	$(BIN)/python -m tools.model score runtime/dreambooth/models/builtin/emoji .cache/model/data build/model/score.json

# Not phony: made once for each content of the locks.
$(ENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Setting up .venv. The first time this downloads about 3 GB (torch)."; $(PYTHON) -m venv .venv; }
	@test -x $(BIN)/uv && $(BIN)/uv --version | grep -qF "$$(sed -n 's/^uv==\([^ ]*\).*/uv \1/p' requirements/uv.txt)" \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip sync $(QUIET) --python $(BIN)/python --compile-bytecode --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable runtime --editable operator --editable plugin
	@rm -f .venv/.ready-* && touch $@

##@ A local Kubernetes
-include tools/cluster/cluster.mk
