# make demo | test | test-all | lint | docs | bench: each sets up what it needs, once, in .venv.
PYTHON ?= python3
BIN := .venv/bin
CORE := .venv-core/bin

# real data sets for tests and benchmarks, where they are at hand
ifneq ($(wildcard ../shared/data),)
export QUESTS_ZENN_DATA ?= $(abspath ../shared/data)
endif

SOURCES := $(shell find quests_zenn -name '*.py')
GALLERY := $(wildcard examples/gallery/*)
TESTS := $(shell find tests -name '*.py') docs/blocks.py $(wildcard docs/*.md docs/*/*.md) README.md $(GALLERY)
SETUP := setup.cfg pyproject.toml constraints.txt
# Numba does not notice edits in another file than the kernel's: one cache for each state of the sources
build/tested build/tested-slow: export NUMBA_CACHE_DIR = $(CURDIR)/build/numba/$(shell cat $(SOURCES) | cksum | cut -d' ' -f1)
DEMO = quests-entropy examples/copper_melting.xyz --bandwidth 0.03 --plot build/demo/entropy.png --overwrite
# Tests run in so many processes, which take over what is left of each other's lists
TEST_PROCESSES ?= 2
PYTEST = pytest -n $(TEST_PROCESSES) --dist worksteal
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint docs bench clean
.DELETE_ON_ERROR:

demo: build/demo/table.txt
	@cat build/demo/table.txt
	@echo "Done: the table above is the entropy of examples/copper_melting.xyz; the figure is build/demo/entropy.png."

test: build/tested
	@cat build/tested

test-all: build/tested-slow
	@cat build/tested-slow

.venv/ready-demo: $(SETUP)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quests_zenn needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	@echo "Setting up .venv ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP_INSTALL) -e '.[plot]'
	@touch $@

.venv/ready-all: .venv/ready-demo
	@echo "Installing all extras into .venv ..."
	@$(BIN)/python $(PIP_INSTALL) -e '.[all]'
	@touch $@

# The core alone, from a built wheel: nothing of the source tree is importable there
.venv-core/ready: .venv/ready-all $(SOURCES)
	@echo "Building a wheel and setting up .venv-core ..."
	@rm -rf build/wheel build/lib build/bdist.*
	@mkdir -p build
	@$(BIN)/python -m build --wheel --outdir build/wheel . >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	@test -x $(CORE)/python || $(PYTHON) -m venv .venv-core
	@$(CORE)/python $(PIP_INSTALL) --force-reinstall --no-deps build/wheel/*.whl
	@$(CORE)/python $(PIP_INSTALL) "$$(echo build/wheel/*.whl)[test]"
	@touch $@

build/demo/table.txt: .venv/ready-demo examples/copper_melting.xyz $(SOURCES)
	@mkdir -p build/demo
	@echo '$$ $(DEMO)' > $@
	@PATH=$(BIN):$$PATH $(DEMO) >> $@

build/tested: .venv/ready-all .venv-core/ready $(SOURCES) $(TESTS)
	@mkdir -p build
	$(BIN)/$(PYTEST) -m "not slow"
	@echo "The same with the core alone, from the wheel:"
	cd build && ../$(CORE)/$(PYTEST) -c ../pyproject.toml --rootdir .. -m "not slow" ../tests
	@echo "Done: the tests passed with all extras and with the core alone (the slow ones: make test-all)." > $@

build/tested-slow: .venv/ready-all .venv-core/ready $(SOURCES) $(TESTS)
	@mkdir -p build
	$(BIN)/$(PYTEST)
	cd build && ../$(CORE)/$(PYTEST) -c ../pyproject.toml --rootdir .. ../tests
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -m "not slow" tests/entropy/test_engine.py tests/entropy/test_growing.py tests/descriptors/test_kernel.py -k small
	@echo "Done: all tests passed, the slow ones included, with all extras and with the core alone." > $@

lint: .venv/ready-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@echo "Done: style and types are clean."

# Scripts of the gallery run again when the package changes, not only when they themselves do
docs/gallery_built/.current: $(SOURCES) $(GALLERY) docs/conf.py
	@rm -rf docs/gallery_built
	@mkdir -p docs/gallery_built
	@touch $@

docs: .venv/ready-all docs/gallery_built/.current
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "Done: the documentation is docs/_build/html/index.html."

bench: .venv/ready-all
	$(BIN)/python benchmarks/run.py
	@echo "Done: the tables are in benchmarks/results."

clean:
	rm -rf build dist .venv .venv-core docs/_build docs/gallery_built *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Done: everything that make had built is gone."
