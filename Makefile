# Two commands do everything: `make ablation-cris` and `make test`. The first call of either sets up .venv.
# Options: PROFILE=toy|refcoco|refcoco+|gref  SEEDS=1  JOBS=2  DATA=dir  ROWS=a,b  RUNS=dir  REPORTS=dir
#          LAUNCHER=slurm  CLUSTER="--partition gpu ..."

PYTHON  ?= python3
VENV    ?= .venv
RISLAB  := $(VENV)/bin/rislab
PROFILE ?= toy
SEEDS   ?= 1
JOBS    ?=
DATA    ?=
ROWS    ?=
RUNS    ?=
REPORTS ?=
LAUNCHER ?=
CLUSTER ?=
PAGE    ?= reports/live.html
YES     ?=
WEIGHTS ?=
PDF     ?=
CASES   ?=
OUT     ?=

OPTIONS = --profile $(PROFILE) --seeds $(SEEDS) $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS))
PLACE   = $(if $(LAUNCHER),--launcher $(LAUNCHER)) $(CLUSTER) $(if $(JOBS),--jobs $(JOBS)) $(if $(DATA),--data '$(DATA)')

.DEFAULT_GOAL := help
.PHONY: docs help setup check format bench test wheel faults three-ways simulation slurm wandb full-size compiled compare parity parity-archive toy clip gc report clean

help: ## this list
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## .venv with rislab and everything it needs

$(VENV)/.ready: pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once; about two minutes)"
	@$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $@

ablation-%: $(VENV)/.ready ## train and report a paper's table: PROFILE=toy SEEDS=1 JOBS=2 DATA=dir
	@$(RISLAB) ablate run $* $(OPTIONS) $(PLACE)
	@$(RISLAB) ablate report $* $(OPTIONS) $(if $(REPORTS),--out $(REPORTS))

plan-%: $(VENV)/.ready ## what `make ablation-NAME` would run
	@$(RISLAB) ablate plan $* $(OPTIONS) $(if $(LAUNCHER),--launcher $(LAUNCHER)) $(CLUSTER) $(if $(DATA),--data '$(DATA)')

status-%: $(VENV)/.ready ## what the trials of a table are doing
	@$(RISLAB) ablate status $* $(OPTIONS)

watch-%: $(VENV)/.ready ## the same until they have ended, as a page: PAGE=reports/live.html
	@$(RISLAB) ablate status $* $(OPTIONS) --html $(PAGE) --watch

gc: $(VENV)/.ready ## what below runs/ no table needs; YES=1 removes it
	@$(RISLAB) ablate gc $(if $(RUNS),--runs $(RUNS)) $(if $(YES),--yes)

report: $(VENV)/.ready ## the report of whatever has been run: TABLE=cris
	@$(RISLAB) ablate report $(or $(TABLE),cris) $(OPTIONS) $(if $(REPORTS),--out $(REPORTS))

check: $(VENV)/.ready ## format, lint, types, layers
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/pytest -n 0 tests/test_layers.py tests/test_surface.py

format: $(VENV)/.ready ## put the code into its form
	@$(VENV)/bin/ruff format --quiet .
	@$(VENV)/bin/ruff check --quiet --fix .

test: $(VENV)/.ready ## all tests but the long ones
	@$(VENV)/bin/pytest

wheel: $(VENV)/.ready ## build the wheel, and run a row of CRIS's table with it alone, to a report; some minutes
	@$(VENV)/bin/pytest -n 0 -s -m 'slow or not slow' tests/e2e/test_wheel.py

simulation: $(VENV)/.ready ## false positives and power of verdicts, on 2,000 tables of known truth for each of 48 scenarios
	@$(VENV)/bin/pytest -n 0 -s -m slow tests/report/test_simulation.py

full-size: $(VENV)/.ready ## loading and scoring at the real sizes of RefCOCO and COCO-Stuff, with the figures
	@$(VENV)/bin/pytest -n 0 -s -m slow tests/data/test_full_size.py tests/metrics/test_full_size.py

compiled: $(VENV)/.ready ## every method's training step through torch.compile; minutes, needs a C++ compiler
	@$(VENV)/bin/pytest -n 2 -m slow tests/methods/test_compiled.py

docs: $(VENV)/.ready ## the documentation site, built strictly, in site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo site/index.html

faults: $(VENV)/.ready ## 34 faults in two tables on pools, SLURM and wandb agents, with the tally (root; RISLAB_TOOLS)
	@$(VENV)/bin/pytest -n 2 --dist worksteal -m slow tests/launch tests/faults

three-ways: $(VENV)/.ready ## CRIS's table, small, by pool, SLURM and wandb agents: the same to the byte; some minutes (root; RISLAB_TOOLS)
	@$(VENV)/bin/pytest -n 0 -m slow tests/e2e/test_three_ways.py

slurm: $(VENV)/.ready ## the long test on a real SLURM: a trial over two nodes (root; RISLAB_TOOLS)
	@$(VENV)/bin/pytest -n 0 -m slow tests/e2e/test_slurm.py

wandb: $(VENV)/.ready ## the long tests with real wandb agents (offline; RISLAB_TOOLS: the folder with stand-ins for servers)
	@$(VENV)/bin/pytest -n 0 -m slow tests/e2e/test_wandb.py

bench: $(VENV)/.ready ## reports/bench.md: every method's work at full size, beside the official figures; hours, resumable
	@$(RISLAB) bench page --out $(if $(REPORTS),$(REPORTS),reports)/bench.md $(if $(RUNS),--results $(RUNS)/bench)

compare: $(VENV)/.ready ## every method once, on every benchmark, one report of all: SEEDS=1 JOBS=2 PDF=1 WEIGHTS=checkpoints.yaml
	@$(RISLAB) compare --run --seeds $(SEEDS) $(if $(JOBS),--jobs $(JOBS)) $(if $(DATA),--data '$(DATA)') \
	  $(if $(WEIGHTS),--checkpoints '$(WEIGHTS)') $(if $(RUNS),--runs $(RUNS)) $(if $(REPORTS),--reports $(REPORTS)) $(if $(PDF),--pdf)

parity: $(VENV)/.ready ## official numbers against ours: RISLAB_PARITY_ARCHIVE=path or URL, RISLAB_PARITY_SHA256=its digest
	@cases="$$($(VENV)/bin/python -m tests.parity.archive fetch)" && \
	  RISLAB_PARITY="$$cases" RISLAB_PARITY_REQUIRED=1 $(VENV)/bin/pytest -n 0 tests/parity

parity-archive: $(VENV)/.ready ## the archive that `make parity` takes: CASES=folder OUT=parity-1.tar
	@test -n '$(CASES)' || { echo "CASES is missing: the folder METHOD/CASE/FILE"; exit 2; }
	@$(VENV)/bin/python -m tests.parity.archive make '$(CASES)' '$(or $(OUT),parity-1.tar)'

toy: $(VENV)/.ready ## write the toy world to toy/
	@$(RISLAB) data toy --out toy

clip: $(VENV)/.ready ## pretrain the tiny CLIP and show its retrieval accuracy
	@$(RISLAB) data clip

clean: ## remove caches of tools, not runs
	@rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
