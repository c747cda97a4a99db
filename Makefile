# `make` lists the targets. Paths below are relative to this folder.

PYTHON ?= python3
VENV ?= .venv
MODEL ?=
CONFIG ?= config.yaml
ARGS ?=
# What they hold is taken as it is written: make expands nothing in it, and the recipes' shell reads paths as variables.
override PYTHON := $(value PYTHON)
override VENV := $(value VENV)
override MODEL := $(value MODEL)
override CONFIG := $(value CONFIG)
override ARGS := $(value ARGS)
export PYTHON VENV MODEL CONFIG

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv tune model dashboard test check docs count dist lock clean environment environment-dev

# Asked once, and only by targets that need to know.
gpu = $(eval gpu := $$(shell nvidia-smi -L 2>/dev/null | grep '^GPU '))$(gpu)
extra = $(if $(gpu),gpu,cpu)
size = $(if $(gpu),s,t)
side = $(if $(gpu),640,416)
default_model = models/rtmo-$(size)-exported

ifeq ($(strip $(VENV)),)
run = "$$PYTHON"
setup = @:
export PYTHONPATH := $(CURDIR)$(if $(value PYTHONPATH),:$(value PYTHONPATH))
else
run = "$$VENV/bin/python"
setup = @sh scripts/setup_venv.sh "$$VENV" "$$PYTHON" $(extra)
endif

help: ## list the targets
	@echo "make TARGET [PYTHON=$$PYTHON] [VENV=$$VENV] [MODEL=file.onnx] [CONFIG=$$CONFIG] [ARGS='more options']"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo "Each target makes the environment that it needs. With VENV= it installs nothing and takes PYTHON as it is."

venv: environment-dev ## make the environment in VENV, the tools for development included

tune: export THEN = the model is tuned, in ten minutes at most unless ARGS has a --timeout.
tune: environment $(if $(MODEL),,model) ## find the fastest settings for MODEL (else for RTMO) and write them to CONFIG
	@exec $(run) -m rtmo_optuna tune $(tuned) --config "$$CONFIG" $(ARGS)

tuned = $(if $(MODEL),"$$MODEL",$(default_model).onnx --input $(default_model).npz $(shape))

# Its batch is open, and what is open cannot be captured; the throughput study has a batch of its own.
shape = $(if $(findstring --shape,$(ARGS))$(findstring throughput,$(ARGS)),,--shape 1x3x$(side)x$(side))

# Built aside and moved, the model last: a build that was cut off is begun anew.
model: environment ## build the default model: RTMO-s where there is an NVIDIA GPU, else RTMO-t, as PyTorch exports it
	@test -e $(default_model).onnx || { \
		echo "Building $(default_model).onnx (random weights) and an input for it ..." && mkdir -p models/.new && \
		$(run) scripts/build_rtmo.py $(size) --exported --output models/.new/rtmo.onnx >/dev/null && \
		mv models/.new/rtmo.npz $(default_model).npz && mv models/.new/rtmo.onnx $(default_model).onnx && \
		rmdir models/.new; }

dashboard: environment ## show the studies in a browser
	@exec $(run) -m rtmo_optuna dashboard $(ARGS)

test: environment-dev ## run the tests, in a process for each core and one more
	@exec $(run) -m pytest -n auto --dist loadgroup $(ARGS)

check: environment-dev ## lint, check the format, the types, who imports whom, and the links of the documents
	@$(run) -m ruff check
	@$(run) -m ruff format --check
	@$(run) -m mypy
	@$(run) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	@NO_MKDOCS_2_WARNING=1 $(run) -m mkdocs build --site-dir .cache/site

docs: environment-dev ## build the documents as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(run) -m mkdocs build
	@echo "Open site/index.html."

count: environment ## count modules, lines, floors and arrows (ARGS='603e12a': of a commit beside them)
	@$(run) benchmarks/count_code.py $(ARGS)

dist: environment-dev ## build the wheel and the source archive, in dist/
	@rm -rf dist
	@$(run) -m build --outdir dist

lock: environment ## pin all dependencies anew in requirements.lock (ARGS=--upgrade: at their newest versions)
	@sh scripts/setup_lock.sh $(run) $(ARGS)

clean: ## remove the environment and caches; models, studies and results stay
	@test ! -e "$$VENV/pyvenv.cfg" || rm -rf "$$VENV"
	@rm -rf .cache .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site
	@find rtmo_optuna scripts benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

environment:
	$(setup) base

environment-dev:
	$(setup) dev
