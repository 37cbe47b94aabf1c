# `make demo` and `make test` need Python >= 3.10 and nothing else: they make .venv and install into it.
PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
TEST_ARGS ?=

BIN := $(VENV)/bin
PINS := constraints.txt

.PHONY: demo test lint clean help

help:
	@echo "make demo   install into $(VENV), then run srseg's main job on an embedded dataset"
	@echo "make test   install into $(VENV), then run the tests"
	@echo "make lint   ruff, as pre-commit runs it"
	@echo "make clean  remove $(VENV)"
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) DEMO_ARGS TEST_ARGS"

demo: $(VENV)/.installed-demo
	$(BIN)/srseg_demo $(DEMO_ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile $(TEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV)

# A stamp is written only after its step has succeeded, so an interrupted set-up is taken up again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "srseg needs Python >= 3.10, and PYTHON=$(PYTHON) is not one: try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed-demo: EXTRAS = demo
$(VENV)/.installed-test: EXTRAS = demo,test
$(VENV)/.installed-dev: EXTRAS = demo,test,dev

$(VENV)/.installed-%: $(VENV)/.created setup.py pyproject.toml $(PINS)
	$(BIN)/python -m pip install -c $(PINS) -e '.[$(EXTRAS)]'
	touch $@
