# make course   run every lesson; make lab   open the notebooks
# make real     fetch SmolLM2-135M for notebooks 08 to 10, once; it then works offline
# make site     the course as pages, in runs/site
# make bundle   all of it for a room without network, in runs/bundle
# make test     the tests, lessons at a tenth of their size; make test-all   all of them
# On Linux without a GPU: make course TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
VENV := .venv
TORCH_INDEX ?= $(shell cat $(VENV)/installed 2>/dev/null)
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
WRONG_PYTHON := This course needs Python 3.11, 3.12 or 3.13; name one as in: make course PYTHON=python3.12
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A bundle brings its wheels and its cache along, in the clone.
FROM := $(if $(wildcard wheels),--no-index --find-links wheels)
TORCH_FROM = $(or $(FROM),$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)))
ifneq ($(wildcard cache),)
export ALIGNLIB_CACHE ?= $(CURDIR)/cache
endif
# Its name says what its wheels fit, such as alignlib-linux-x86_64-3.11.
BUNDLE = runs/bundle/alignlib-$(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_platform(), sysconfig.get_python_version(), sep='-')")
CACHE := from alignlib.host import cache_folder; print(cache_folder())

.PHONY: course test test-all lab build base real site bundle clean

course: $(VENV)/installed
	$(BIN)/python -m alignlib run all --out runs
	@echo "Results and figures are in runs/00, runs/01, ... To work yourself: make lab, then the folder notebooks."

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
bundle: site
	rm -rf $(BUNDLE)
	git clone -q . $(BUNDLE)
	git -C $(BUNDLE) remote remove origin
	$(PIP) wheel -q -c constraints.txt -w $(BUNDLE)/wheels torch $(TORCH_FROM)
	$(PIP) wheel -q -c constraints.txt -w $(BUNDLE)/wheels $(FROM) --find-links $(BUNDLE)/wheels '.[lab,serve,site,test]' editables
	rm -f $(BUNDLE)/wheels/alignment_course-*.whl
	cache=$$($(BIN)/python -c "$(CACHE)") && mkdir -p "$$cache" && cp -R "$$cache" $(BUNDLE)/cache
	rm -rf $(BUNDLE)/cache/calls* $(BUNDLE)/cache/.part-*  # answers that may be paid for; halves
	mkdir -p $(BUNDLE)/runs && cp -R runs/site $(BUNDLE)/runs
	@du -sh $(BUNDLE)
	@echo "Copy $(BUNDLE) to each computer; there, make course and make lab need no network."

base: $(VENV)/installed
	$(BIN)/python -m alignlib pretrain --out runs/base

# Torch comes first and pinned, so that nothing else pulls another build of it.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit('$(WRONG_PYTHON)')"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch $(TORCH_FROM)
	$(PIP) install -q -c constraints.txt $(FROM) -e '.[lab,serve,site,test]'
	@echo "$(TORCH_INDEX)" > $@

clean:
	rm -rf runs .pytest_cache
