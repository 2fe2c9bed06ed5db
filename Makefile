# Two commands on a fresh machine: `make demo` and `make test`. Both set themselves up in ./.venv first.
# Written for GNU make 3.81 (macOS) and later.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

STRICT := notebooks/01_rgbd_frames.ipynb notebooks/02_hide_and_guess.ipynb
NBVAL := --nbval-current-env --nbval-cell-timeout=180 --nbval-sanitize-with=notebooks/sanitize.cfg -p no:cacheprovider

.PHONY: help setup demo lab notebooks test nbval bench clean distclean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo '  Variables: FRAMES=DIR, PYTHON=python3.12, JOBS=2, ARGS="more arguments for the command"'

setup: $(READY)  ## install everything into .venv; costs nothing when nothing changed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "expected Python 3.10 or newer; got '$(PYTHON)' = $$($(PYTHON) --version 2>&1 | head -n 1). Say which one: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "expected the venv module; '$(PYTHON)' has none. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) (a few minutes; on Linux torch brings CUDA's libraries along) ..."
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'pip>=22.3'
	@$(BIN)/python -m pip install $(if $(CI),-q) --disable-pip-version-check -c constraints.txt -e '.[lab,measure,test]'
	@touch $(READY)

demo: setup  ## the main job on what ships here, or on a recording of yours: make demo FRAMES=DIR
	$(BIN)/mask3d demo $(if $(FRAMES),--frames "$(FRAMES)") $(ARGS)

lab: setup  ## JupyterLab on the first notebook; ARGS="--frames DIR" for a recording of yours
	$(BIN)/mask3d lab $(ARGS)

notebooks: setup  ## run notebooks/*.py and write the .ipynb with their pictures
	$(BIN)/python docs/make_notebooks.py $(ARGS)

# one thread per worker: two workers of two threads each would fight for two cores
test: setup  ## every test and every notebook; the choice narrows with ARGS="-k frames"
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --durations=10 $(ARGS)
	$(if $(ARGS),,$(MAKE) nbval)

nbval: setup  ## every notebook from top to bottom; the numbers of some are compared with those that are stored
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --durations=5 --nbval $(NBVAL) $(STRICT)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --durations=5 --nbval-lax $(NBVAL) \
	  $(filter-out $(STRICT),$(wildcard notebooks/*.ipynb))

bench: setup  ## speed and memory on this machine
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove caches and build leftovers; runs, stores and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .hypothesis
	find mask3d_core mask3d_viz tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## clean, and .venv too
	rm -rf $(VENV)
