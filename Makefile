# Two commands do all the set-up, in .venv and nowhere else:
#
#   make demo    export a small trained model, run it on a photograph, write the pictures
#   make test    the whole test suite
#
# Choose another Python (3.10 to 3.13) with PYTHON=/path/to/python3. PyTorch's CPU build is
# enough; pip takes whichever build its settings (PIP_INDEX_URL, PIP_FIND_LINKS) offer.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -qq --constraint constraints.txt

# What an editable install compiles, once.
NATIVE := CMakeLists.txt $(shell find cmake plugins -name '*.h' -o -name '*.c[cu]' \
  -o -name '*.cuh' -o -name '*.cmake' -o -name CMakeLists.txt)

.PHONY: help demo test clean
.SUFFIXES:

help:
	@sed -n 's/^#   make/make/p' Makefile

demo: $(VENV)/export.stamp
	$(RUN)/m2f demo

test: $(VENV)/dev.stamp
	$(RUN)/python -m pytest

$(VENV)/pip.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit( \
	  f"Python 3.10 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; pass PYTHON=...")'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip
	@touch $@

$(VENV)/export.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt $(NATIVE)
	@echo "installing m2f and PyTorch into $(VENV); this takes minutes the first time only"
	@$(INSTALL) --editable '.[export]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/export.stamp
	@echo "installing the test tools into $(VENV)"
	@$(INSTALL) --group dev
	@# Its metadata asks for NumPy 1, which its code does not need.
	@$(INSTALL) --no-deps panopticapi-lite==0.2.0
	@# TensorRT's headers, which nothing smaller on PyPI carries; its code is not used.
	@$(INSTALL) --no-deps kernel-lens==2.0.1
	@touch $@

clean:
	rm -rf $(VENV) build dist demo-output .mypy_cache .ruff_cache .pytest_cache
