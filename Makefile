# `make` lists the targets. Paths below are relative to this folder.

PYTHON ?= python3
VENV ?= .venv
MODEL ?=
CONFIG ?= config.yaml
ARGS ?=
export MODEL CONFIG

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv tune model dashboard test check lock clean environment environment-dev

# Asked once, and only by targets that need to know.
gpu = $(eval gpu := $$(shell nvidia-smi -L 2>/dev/null | grep '^GPU '))$(gpu)
extra = $(if $(gpu),gpu,cpu)
default_model = models/rtmo-$(if $(gpu),s,t)

ifeq ($(strip $(VENV)),)
run = exec "$(PYTHON)"
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
setup = @:
else
run = exec "$(VENV)/bin/python"
setup = @sh scripts/setup_venv.sh "$(VENV)" "$(PYTHON)" $(extra)
endif

help: ## list the targets
	@echo "make TARGET, with any of PYTHON=$(PYTHON) VENV=$(VENV) MODEL=file.onnx CONFIG=$(CONFIG) ARGS='more options':"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo "Each makes the environment that it needs; with an empty VENV= it takes PYTHON as it is and installs nothing."

venv: environment-dev ## make the environment in VENV, tools for development included

tune: environment $(if $(MODEL),,model) ## find the fastest settings for MODEL (without one: for RTMO) and write them to CONFIG
	@$(run) -m rtmo_optuna tune $(if $(MODEL),"$$MODEL" --config "$$CONFIG",$(default_model).onnx --config "$$CONFIG" --input $(default_model).npz) $(ARGS)

model: environment ## build the default model: RTMO-s where there is an NVIDIA GPU, else RTMO-t
	@test -s $(default_model).onnx && test -s $(default_model).npz || sh scripts/setup_model.sh $(default_model)

dashboard: environment ## show the studies in a browser
	@$(run) -m rtmo_optuna dashboard $(ARGS)

test: environment-dev ## run the tests
	@$(run) -m pytest $(ARGS)

check: environment-dev ## lint, check the formatting, the types and who imports whom
	@$(run) -m ruff check
	@$(run) -m ruff format --check
	@$(run) -m mypy
	@$(run) -c 'import importlinter.cli as cli; cli.lint_imports_command()'

lock: environment ## pin the dependencies anew in requirements.lock (ARGS=--upgrade: to their newest versions)
	@$(run) scripts/setup_lock.py $(ARGS)

clean: ## remove the environment and caches; models, studies and results stay
	@if [ -n "$(VENV)" ] && [ -e "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
	@rm -rf .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
	@find rtmo_optuna scripts tests -name __pycache__ -prune -exec rm -rf {} +

environment:
	$(setup) $(if $(VENV),base)

environment-dev:
	$(setup) $(if $(VENV),dev)
