# make course   run every lesson; make lab   open the notebooks
# make real     fetch SmolLM2-135M for notebooks 08 to 10, once; it then works offline
# make site   the course as pages, in runs/site; make bundle   all of it for a room without network
# make test     the tests, lessons at a tenth of their size; make test-all   all of them
# On Linux without a GPU: make course TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
WRONG_PYTHON := This course needs Python 3.11, 3.12 or 3.13; name one as in: make course PYTHON=python3.12
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A bundle brings its wheels and its cache along, in the clone.
FROM := $(if $(wildcard wheels),--no-index --find-links wheels)
ifneq ($(wildcard cache),)
export ALIGNLIB_CACHE ?= $(CURDIR)/cache
endif
BUNDLE := runs/bundle
# All but the answers of servers that somebody may have paid for
COPY_CACHE := import shutil, sys; from alignlib.host import cache_folder; cache_folder().mkdir(parents=True, exist_ok=True); \
	shutil.copytree(cache_folder(), sys.argv[1], ignore=shutil.ignore_patterns('calls.sqlite3*', '*.lock'))

.PHONY: course test test-all lab build base real site bundle clean

course: $(VENV)/installed
	$(BIN)/python -m alignlib run all --out runs
	@echo "Open the executed notebooks in runs/00, runs/01, ... (make lab shows them too); the figures lie beside them."

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow"

lab: $(VENV)/installed
	$(BIN)/python -m jupyter lab

build: $(VENV)/installed
	$(BIN)/python -m alignlib build

real: $(VENV)/installed
	$(BIN)/python -m alignlib real

site: $(VENV)/installed
	rm -rf runs/site
	$(BIN)/python site/build.py --out runs/site

# Clone, wheels and what the cache holds; the wheels fit machines like this one.
bundle: $(VENV)/installed
	rm -rf $(BUNDLE)
	git clone -q . $(BUNDLE)/alignlib
	git -C $(BUNDLE)/alignlib remote remove origin
	$(PIP) wheel -q -c constraints.txt -w $(BUNDLE)/alignlib/wheels torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) wheel -q -c constraints.txt -w $(BUNDLE)/alignlib/wheels --find-links $(BUNDLE)/alignlib/wheels '.[lab,serve,site,test]' editables
	rm -f $(BUNDLE)/alignlib/wheels/alignment_course-*.whl
	$(BIN)/python -c "$(COPY_CACHE)" $(BUNDLE)/alignlib/cache
	@du -sh $(BUNDLE)/alignlib/wheels $(BUNDLE)/alignlib/cache
	@echo "Copy $(BUNDLE)/alignlib to each computer; there, make course and make lab need no network."

base: $(VENV)/installed
	$(BIN)/python -m alignlib pretrain --out runs/base

# Torch comes first and pinned, so that nothing else pulls another build of it.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit('$(WRONG_PYTHON)')"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch $(or $(FROM),$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)))
	$(PIP) install -q -c constraints.txt $(FROM) -e '.[lab,serve,site,test]'
	@touch $@

clean:
	rm -rf runs .pytest_cache
