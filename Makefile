# Everything a user or a contributor runs from a checkout. `make` alone lists the targets.
#
#   PYTHON       the interpreter that makes the environment (3.11 or newer)
#   PIP_ARGS     passed to pip: an index with a CPU or a CUDA build of torch, a proxy, ...
#   PYTEST_ARGS  passed to pytest: PYTEST_ARGS="tests/ops -x"

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install -c constraints.txt $(PIP_ARGS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo chat talk serve test check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Run a command, then say how to call it without make; a trap, or Ctrl-C in a chat would end the recipe.
ACTIVATE = The slowwave commands of README.md work after: source $(VENV)/bin/activate
run = @echo 'slowwave $(1)'; trap : INT; $(BIN)/slowwave $(1); code=$$?; \
	printf '\n%s\n' '$(ACTIVATE)'; exit $$code

demo: $(VENV)/.installed ## install, then watch shipped models read, sleep, forget their cache, and answer
	$(call run,demo)

chat: $(VENV)/.installed ## install, fetch SmolLM2-135M (92 MB, once), and talk with it across restarts
	$(call run,chat smollm2 --memory me)

talk: $(VENV)/.installed ## install, then talk with a small model whose fast weights remember across restarts
	$(call run,chat checkpoints/talk --memory talk)

serve: $(VENV)/.installed ## install, then serve it to a browser and to OpenAI's clients, on port 8000
	@echo '$(ACTIVATE)'
	$(BIN)/slowwave serve checkpoints/talk

test: $(VENV)/.installed-dev ## install the development tools, then run the whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.installed-dev ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean: ## remove caches and build output; keeps the environment and runs/
	rm -rf build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The stamps make a second call quick: pip runs again only when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[plot,text,models,serve]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'slowwave needs Python 3.11 or newer, and "$(PYTHON)" is not;' \
			'name one, for example: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -f $@; \
		echo 'could not make $(VENV): is the venv module of "$(PYTHON)" installed?' >&2; exit 1; }
