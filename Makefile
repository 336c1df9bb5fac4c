# make sweep: the main job, make sweeps: all questions of benchmarks/. make test: all checks, make check: the quick ones. make figures, faults, cluster, page, fuzz, mutants: longer ones. PYTHON=python3.12 takes another interpreter, and its own environment.
PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(notdir $(PYTHON))),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# one worker's tests need 8 devices (tests/conftest.py); two processes share two cores
pytest = JAX_PLATFORMS=cpu $(1) $(BIN)/python -m pytest -n 2 --dist worksteal
# these are about bits, so the compiler does for them what it does for users; elsewhere it would take most of the time
BITS := tests/test_engine.py tests/test_store.py tests/test_checkpoints.py
# these compile little: a minute on two cores together with the types
QUICK := $(patsubst %,tests/test_%.py,agents barriers cells cluster columns cost curves delays files graphs identity \
	memory names options plain plan readers results_command runs sequences sound spectrum stairs start style topology weights where)

.PHONY: sweep sweeps test check style types bits quick figures faults cluster page fuzz mutants speed ahead ahead-h100 ahead-v5e clean

sweep: $(VENV)/.installed
	$(BIN)/dopt sweep benchmarks/connectivity_delay.yaml --extend learning_rate

# every question in benchmarks/, a few minutes in all; no cell that reaches its target has its best rate at the edge of its grid
sweeps: $(VENV)/.installed-weights
	for file in benchmarks/*.yaml; do $(BIN)/dopt sweep $$file --extend learning_rate || exit; done

test: style
	+$(MAKE) --no-print-directory --jobs=2 types bits
	$(call pytest,HURRY=1) $(addprefix --ignore=,$(BITS))

# what can be said at once of a change: style, types, and the tests that compile little
check: style
	+$(MAKE) --no-print-directory --jobs=2 types quick

style: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bits: $(VENV)/.installed-dev
	$(call pytest,) $(BITS)

quick: $(VENV)/.installed-dev
	$(call pytest,HURRY=1) $(QUICK)

# all figures; fails where a claim that we say holds does not
figures: $(VENV)/.installed-figures
	$(BIN)/dopt figures --gallery

# all faults, really caused (`make test` causes a few of them), and the table of docs/trust.md
faults: $(VENV)/.installed-dev
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.faults

# sweeps on clusters that are started here: of Ray, and a Slurm, where there is one (Debian: slurm-wlm, munge); runs of two processes
cluster: $(VENV)/.installed-dev
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m cluster tests/cluster tests/test_hosts.py

# the report page in a headless Chromium, where there is one (Debian: chromium); it leaves pictures in build/page
page: $(VENV)/.installed-dev
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -s -m page tests/page

# 20 000 damaged inputs of every kind that dopt reads, each taken or refused in one line (`make test` tries a thousand)
fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz

# each figure with wrong methods, laws and rules, each of which must fail one of its claims: half an hour on two cores;
# RESULTS=results takes the right methods' results from there (`make figures` leaves them)
mutants: $(VENV)/.installed-dev
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.mutants $(if $(RESULTS),--results $(RESULTS))

# half an hour on two cores, and goes on where it was stopped
speed: $(VENV)/.installed
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.speed.tables

# every method's program, compiled for an H100 and for a slice of TPU v5e that are not here, and what its loops launch; each has an
# environment of its own, which has all that the main one has and a plug-in (half a GB), since that would change what JAX does there
ahead: ahead-h100 ahead-v5e

WANTS_h100 := jax-cuda13-pjrt jax-cuda13-plugin
WANTS_v5e := jax[tpu]
ahead-h100 ahead-v5e: ahead-%: $(VENV)/.installed
	@test -x $(VENV)-ahead-$*/bin/python || $(BIN)/python -m venv $(VENV)-ahead-$*
	@where='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(BIN)/python -c "$$where" > "$$($(VENV)-ahead-$*/bin/python -c "$$where")/main.pth"
	@jax=$$($(BIN)/python -c 'import jax; print(jax.__version__)'); \
	if $(VENV)-ahead-$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(foreach plugin,$(WANTS_$*),"$(plugin)==$$jax") 2> $(VENV)-ahead-$*/refused; then \
		$(VENV)-ahead-$*/bin/python -m benchmarks.speed.ahead --target $* $(AHEAD); \
	else echo "ahead: $* is left out: the registry does not give $(WANTS_$*) $$jax ($$(grep -m 1 ERROR $(VENV)-ahead-$*/refused))"; fi

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dopt needs Python 3.11 or newer, this is %s; say make PYTHON=python3.12" % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing dopt into $(VENV) (once)"
	@$(PIP) --editable '.[report]'
	@touch $@

# .installed-EXTRA: with what this extra brings
$(VENV)/.installed-%: $(VENV)/.installed
	@echo "installing dopt[$*]"
	@$(PIP) --editable '.[$*]'
	@touch $@

clean:
	rm -rf .venv* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
