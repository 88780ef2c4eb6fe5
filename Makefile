# `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ORIGINAL ?= .venv-original
ORIGINAL_READY := $(ORIGINAL)/.ready
OLDEST ?= .venv-oldest
OLDEST_READY := $(OLDEST)/.ready
OLDEST_TOOLS := beartype hypothesis pytest pytest-timeout pytest-xdist
OLDEST_TESTS := tests/models/painting tests/models/labelling tests/models/student tests/models/test_networks.py \
	tests/models/test_weights.py tests/models/test_hub.py tests/tasks tests/storage/exports \
	$(addprefix tests/storage/test_,archives.py card.py codecs.py documents.py fuzzed_readers.py hostile_files.py \
	hostile_records.py local_objects.py manifest.py merging.py repacked_tars.py shards.py store.py verification.py)

.PHONY: bench coverage demo test test-full test-fuzz test-oldest test-original test-slow check setup setup-oldest setup-original

demo: $(READY)
	$(BIN)/magicseg demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not fuzz and not full"

# The same with the lines that no test runs; it takes a good deal longer.
coverage: $(READY)
	$(BIN)/python -m pytest --cov -n 2 --dist loadfile -m "not slow and not fuzz and not full"

# Much of their time is waiting: three share two cores well. The longest files come first (conftest),
# which the other order of xdist, by number of tests, would undo.
test-slow: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow

# Before a release: the chain at full size (7 GB of disk), whole trainings, the shipped weights.
test-full: $(READY)
	$(BIN)/python -m pytest -m full

test-fuzz: $(READY)
	$(BIN)/python -m pytest -n 2 -m fuzz

# Less than twenty minutes with nothing beside it; leaves benchmarks/results/table.md.
bench: $(READY)
	$(BIN)/python -m benchmarks

# On the oldest versions that pyproject.toml allows: models, storage, stages, and a small dataset.
test-oldest: $(OLDEST_READY)
	$(OLDEST)/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not fuzz and not full" $(OLDEST_TESTS)
	$(OLDEST)/bin/python -m pytest tests/flows/test_small_generation.py

# What the extra 'original' brings, beside the same weights in transformers: it needs transformers 4.
test-original: $(ORIGINAL_READY)
	$(ORIGINAL)/bin/python -m pytest tests/models/labelling/original tests/flows/test_original_generation.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(READY)

setup-oldest: $(OLDEST_READY)

setup-original: $(ORIGINAL_READY)

# The last line puts OpenCV without windows over OpenCV with windows, which mmcv asks for and which
# needs graphics libraries that servers lack.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "python >= 3.11 is needed, found %s: make PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,mmseg,app]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
	touch $(READY)

$(OLDEST_READY): pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt --editable . $(OLDEST_TOOLS)
	touch $(OLDEST_READY)

$(ORIGINAL_READY): pyproject.toml constraints-original.txt
	$(PYTHON) -m venv $(ORIGINAL)
	$(ORIGINAL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-original.txt --editable '.[original]' $(OLDEST_TOOLS)
	$(ORIGINAL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-original.txt --force-reinstall --no-deps opencv-python-headless
	touch $(ORIGINAL_READY)
