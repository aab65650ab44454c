# What a user and CI run. PYTHON: any Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
WAITING := tests/integration/test_terraform.py
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install install-dev up down test test-fast lint bench gpu-check adapters

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed ## Make .venv and install Loraplex in it

$(VENV)/.installed: pyproject.toml infra/install.sh infra/torch.sh
	@PYTHON=$(PYTHON) infra/install.sh $(VENV) embedded
	@touch $@

install-dev: $(VENV)/.installed-dev ## The same, with what tests and lint need

$(VENV)/.installed-dev: pyproject.toml infra/install.sh infra/torch.sh
	@PYTHON=$(PYTHON) infra/install.sh $(VENV) embedded,dev
	@touch $(VENV)/.installed $@

console: ## Build the console (Node from the system, or from PyPI)
	@infra/console.sh

up: install console-once ## Start everything, deploy the demo, print URLs (Ctrl-C stops all of it)
	@$(BIN)/loraplex up

.PHONY: console console-once
console-once:
	@[ -f api/console/static/index.html ] || infra/console.sh

down: ## Stop what `loraplex up` started
	@$(BIN)/loraplex down

lint: install-dev ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-fast: install-dev ## Unit tests: no server, no model
	$(BIN)/pytest -q tests/unit

.PHONY: docs
docs: install-dev ## Build the documentation into .site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

# Terraform's tests wait for what they make: beside the others they cost nothing.
test: lint console-once docs ## Everything that CI checks
	@$(BIN)/pytest -q $(WAITING) >$(VENV)/waiting.log 2>&1 & beside=$$!; \
	$(BIN)/pytest tests $(WAITING:%=--ignore=%); rest=$$?; \
	wait $$beside || { cat $(VENV)/waiting.log; exit 1; }; exit $$rest

bench: install-dev ## The quick benchmarks (some minutes each)
	for name in engine_vs_peft engine_lora_overhead engine_vs_vllm_cpu delivery cold_start chaos weights capacity; do \
	  $(BIN)/python -m benchmarks.$$name --quick || exit 1; done

gpu-check: install-dev ## The GPU's kernels: interpreted, compiled, measured; and one deployment on it
	$(BIN)/pytest -q tests/unit/test_gpu_kernels.py tests/unit/test_gpu_kernels_compile.py
	@if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then \
	  $(BIN)/python -m benchmarks.gpu && LORAPLEX_DEVICE=cuda infra/one_deployment.sh; else \
	  echo "No NVIDIA GPU here: nothing is measured, the deployment runs on the CPU."; \
	  infra/one_deployment.sh; fi

.PHONY: lock
lock: install-dev ## The images' lock files, anew after a change of dependencies (UPGRADE=1: the newest)
	@PATH="$(BIN):$$PATH" infra/lock.sh

adapters: install-dev ## Train the two demo adapters again (some minutes)
	for name in pirate json; do $(BIN)/python examples/adapters/train.py $$name \
	  --base "$$($(BIN)/python -m loraplex.store.models)" --out examples/adapters/$$name || exit 1; done
