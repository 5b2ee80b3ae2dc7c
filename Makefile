# From a fresh clone to a trained network: make train. Everything is installed into .venv, nothing outside this folder.
#
#   make train ARGS="experiment=..."     Hydra's arguments
#   make train PYTHON=/path/to/python    the Python that .venv is made of

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTHON ?=
PYTEST_ARGS ?= -n auto --maxprocesses 4

.DEFAULT_GOAL := help
.PHONY: help train test lint format bench clean python

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target what; do \
		printf '%-14s %s\n' "$$target" "$$what"; done

train: $(VENV)/installed  ## install what is missing, then train (ARGS="..." is passed on)
	@echo "Training: $(BIN)/ganforge train $(ARGS)"
	@$(BIN)/ganforge train $(ARGS)

test: $(VENV)/installed-dev  ## install what is missing, then run the tests (PYTEST_ARGS="...")
	@OMP_NUM_THREADS=1 $(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/installed-dev  ## check style, types, layers and the workflow
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yaml
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not installed: skipped"; fi

format: $(VENV)/installed-dev  ## put the code into the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/installed  ## run every measured comparison of bench/, into docs/benchmarks.md (ARGS=--quick for minutes)
	@$(BIN)/python bench/run_all.py $(ARGS)

clean:  ## remove caches and builds; .venv and outputs stay
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Each candidate is really run: a pyenv shim or a Windows stub may exist and still fail. The first one that is of a
# supported version and can make virtual environments is left in $$python. Only shell built-ins are used.
define FIND_PYTHON
python=; seen=; bare=; \
for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
	version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=; \
	case "$$version" in \
		3.11|3.12|3.13) \
			if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; \
			then python=$$candidate; break; else bare="$$bare $$candidate"; fi;; \
		?*) seen="$$seen $$candidate is $$version.";; \
		*) $(if $(PYTHON),seen=" $$candidate cannot be run.";) ;; \
	esac; \
done; \
if [ -z "$$python" ] && [ -n "$$bare" ]; then \
	echo "Python cannot make virtual environments (tried:$$bare). On Debian or Ubuntu: apt-get install python3-venv." >&2; \
	exit 1; \
fi; \
if [ -z "$$python" ]; then \
	echo "ganforge needs Python 3.11, 3.12 or 3.13, and none was found.$$seen" \
		"Install one, or name it: make train PYTHON=/path/to/python3.12" >&2; \
	exit 1; \
fi
endef

python:  ## say which Python .venv would be made of
	@$(FIND_PYTHON); echo "$$python"

$(BIN)/python:
	@$(FIND_PYTHON); echo "Making $(VENV) with $$python."; "$$python" -m venv --clear $(VENV)

# The stamps make the second run start at once; a change of the dependencies installs again.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ganforge into $(VENV) (the first time about 5 GB and some minutes, most of it PyTorch)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing ganforge and its development tools into $(VENV) (the first time about 5 GB and some minutes)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(VENV)/installed $@
