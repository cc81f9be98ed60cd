# make demo   set up and run the demo              make test        set up, lint, build and run every test
# make lint   ruff, mypy, imports, clang-format    make test-fast   without the tests that take seconds
# make format rewrite the sources in house style   make test-full   every test, with long property runs
# make perf   measure against the time budgets     make test-oldest every test with the oldest dependencies
# make test-pycuda   PyCUDA and PanRT in one process, on the simulated driver; builds PyCUDA, which takes minutes
# make test-jetpack6 JetPack 6 simulated, with its Python 3.10
# make dist   build wheel and sdist into dist/     make clean       remove everything that was built
# make test-gpu   the suite for a GPU: docs/gpu_validation.md
# make fuzz-native SECONDS=600 SEED=1   call the kernels with arbitrary arguments, under ASan and UBSan
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(shell find plugins \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' \) -print)
CPP    := $(NATIVE) $(shell find tests tools \( -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' \) -print)
JOBS   ?= 2
SECONDS ?= 600
SEED   ?= 1

.PHONY: demo test test-fast test-full test-oldest test-pycuda test-jetpack6 perf lint format fuzz-native dist clean
.DELETE_ON_ERROR:

demo: $(VENV)/product.stamp
	@$(BIN)/panrt demo --out out

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

test-full: lint
	PANRT_TEST_PROFILE=full $(BIN)/python -m pytest -n $(JOBS)

test-fast: $(VENV)/tests.stamp
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

# A separate environment with the versions of that file, which pip also uses in the environment where it builds the
# kernels; since pip 26 a second variable controls that one.
test-oldest:
	PIP_CONSTRAINT=tests/oldest.txt PIP_BUILD_CONSTRAINT=tests/oldest.txt $(MAKE) --no-print-directory VENV=.venv-oldest .venv-oldest/tests.stamp
	.venv-oldest/bin/python -m pytest -n $(JOBS)

test-pycuda: $(VENV)/tests.stamp
	$(BIN)/python -m tools.simcuda.build_pycuda
	$(BIN)/python -m pytest -rs tests/simcuda/test_pycuda.py

# An environment as docs/jetson.md makes it on JetPack 6, but without TensorRT, which JetPack provides.
test-jetpack6:
	$(MAKE) --no-print-directory VENV=.venv-jetpack6 PYTHON=python3.10 .venv-jetpack6/jetpack6.stamp
	.venv-jetpack6/bin/python -m pytest -s tests/simcuda/test_jetson.py

perf: $(VENV)/tests.stamp
	$(BIN)/python -m pytest -m perf benchmarks

lint: $(VENV)/tests.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/tests.stamp
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

fuzz-native: $(VENV)/tests.stamp
	$(BIN)/python tests/plugins/test_sanitizers.py $(SECONDS) $(SEED)

dist: $(BIN)/python
	$(BIN)/python -m pip install --quiet 'build>=1.2'
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) .venv-oldest .venv-jetpack6 build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10)' 2>/dev/null || \
	  { echo "PanRT needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip

# One environment for both: the tests add packages to those of the product, and neither reinstalls installed ones.
$(VENV)/product.stamp: $(BIN)/python pyproject.toml CMakeLists.txt plugins/defaults.cmake $(NATIVE)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/tests.stamp: $(BIN)/python pyproject.toml CMakeLists.txt plugins/defaults.cmake $(NATIVE) tests/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement tests/requirements.txt --editable '.[dev]'
	@touch $(VENV)/product.stamp $@

$(VENV)/jetpack6.stamp: $(BIN)/python pyproject.toml CMakeLists.txt plugins/defaults.cmake $(NATIVE) tests/jetpack6.txt
	$(BIN)/python -m pip install --quiet --requirement tests/jetpack6.txt --editable '.[jetpack6]'
	@touch $@

# Hostile inputs for some minutes: make fuzz MINUTES=30 TARGETS="onnx coco"; one again: make fuzz REPLAY=build/fuzz/...
.PHONY: fuzz
MINUTES ?= 5
fuzz: $(VENV)/tests.stamp
	@PYTHONPATH=tests:. $(BIN)/python -m fuzz $(if $(REPLAY),--replay $(REPLAY),--minutes $(MINUTES) --jobs $(JOBS)) \
	  $(if $(SEED),--seed $(SEED)) $(TARGETS)

# The suite for a GPU; SECONDS scales the limits of its phases, ARGUMENTS go to it. Expected maps are computed once, on the CPU.
.PHONY: test-gpu
test-gpu: SECONDS = 395
test-gpu: $(VENV)/tests.stamp build/gpu/expected.npz
	$(BIN)/python -m tools.gpu.first_day --expected build/gpu/expected.npz --seconds $(SECONDS) $(ARGUMENTS)

build/gpu/expected.npz: tools/gpu/expected.py model/weights/tabletop.safetensors $(VENV)/tests.stamp
	$(BIN)/python -m tools.gpu.expected $@
