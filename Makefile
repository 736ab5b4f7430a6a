# Every target sets up what it needs: Python >= 3.11, git and make are enough.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
MARKS ?= not campaign and not gpu
# Their tests wait for servers for a quarter of their time: one worker more than cores.
SYSTEM_WORKERS ?= $(shell expr $$(nproc 2>/dev/null || echo 2) + 1)
# Each commit of a ledger waits for its disk, which is a third of the tests' time, and in memory does not. `make test`
# writes 3 GB, `make test-system` 10.
ROOMY := $(shell test "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 14000000 2>/dev/null && echo /dev/shm)
IN_SCRATCH := scratch=$$(mktemp -d "$(or $(ROOMY),$(or $(TMPDIR),/tmp))/tgXXXX") && trap 'rm -rf "$$scratch"' EXIT && PYTEST_DEBUG_TEMPROOT=$$scratch
# Without bytecode every process compiles what it imports anew: two to three seconds for torch and transformers alone.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install check types lint lint-imports test test-bare test-arithmetic test-pythons test-system test-gpu campaign demo screenshots compare-demo bench bench-dedup bench-curate bench-read bench-redact bench-labels bench-gates bench-regressions bench-train bench-memory bench-scale bench-forget bench-weeks bench-pairs bench-abstain bench-rag bench-start bench-records torture torture-135m docs lint-infra lock sbom licences audit fuzz up down stack clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: .venv/.installed ## bootstrap uv into .venv and install the locked requirements

.venv/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing the locked requirements (the first time a few minutes, torch alone is large)"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# The types take as long as everything else together.
check: install ## format, lint, types, import rules, image and compose files, age of the benchmarks' results
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target types lint lint-imports lint-infra bench-records

types: install
	@$(BIN)/mypy

lint: install
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

lint-imports: install
	@$(BIN)/lint-imports --no-logo

lint-infra: install ## image and compose files
	@$(BIN)/hadolint infra/Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec infra/compose.yaml infra/compose.gpu.yaml

test: install ## tests in this process; those that lack data skip with their reason; ORDER=7 shuffles them
	@$(IN_SCRATCH) OMP_NUM_THREADS=1 TEST_ORDER=$(ORDER) $(BIN)/python -m pytest -q -n logical --dist worksteal -m "$(MARKS)" --ignore=tests/system

test-bare: install ## `make test` without the packages of any extra but `train`
	@OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m pytest -q -p tests.support.without_extras -n logical --dist worksteal -m "$(MARKS)" --ignore=tests/system

test-system: install ## tests of processes, servers, browsers, Ray and two hosts; those that lack one skip with their reason
	@$(IN_SCRATCH) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(SYSTEM_WORKERS) --dist loadgroup --no-loadscope-reorder --durations 12 -m "$(MARKS)" tests/system

test-gpu: install ## tests that need a CUDA device, two for some; fails where there is none
	@$(BIN)/python -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'there is no CUDA device')"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m gpu tests/tasks

test-arithmetic: install ## both suites in float32, in bfloat16 and without vector units; TESTS=PATH, MARKS=trains: a part
	@set -e; for each in TUNEGATE_AUTO_DTYPE=float32 TUNEGATE_AUTO_DTYPE=bfloat16 ATEN_CPU_CAPABILITY=default; do \
		echo "== $$each"; \
		env OMP_NUM_THREADS=1 $$each $(BIN)/python -m pytest -q -n $(SYSTEM_WORKERS) --dist loadgroup --no-loadscope-reorder -m "($(MARKS)) and not campaign" $(TESTS); \
	done

test-pythons: install ## `make test` on each supported Python that is here or that uv downloads; VERSIONS=3.12, TESTS=PATH: a part
	@$(BIN)/python -m infra.pythons

campaign: install ## the long proofs: real model, three methods, real tickets, killed sweeps, pulled cables, clusters, a whole clone (hours)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m campaign

demo: install ## the main job on the embedded model: promoted, then blocked, then nothing to do
	@$(BIN)/python infra/demo.py

screenshots: install ## pictures of the demo for README and docs; needs Chromium and a finished `make demo`
	@$(BIN)/python infra/screenshots.py

compare-demo: install ## the demo at commit BASE and at this one, compared byte for byte
	@$(BIN)/python infra/compare_demo.py $(BASE)

bench: bench-dedup bench-curate bench-redact bench-labels bench-read bench-rag bench-gates bench-regressions bench-train bench-memory bench-forget bench-weeks bench-pairs bench-abstain bench-start bench-scale ## every benchmark; QUICK=1 for minutes, RECORD=1 keeps the tables

bench-dedup: install ## deduplication beside other libraries, in environments under BENCH_HOME (default .bench/)
	@$(BIN)/python -m benchmarks.dedup

bench-curate: install ## CPU seconds of each curation step over 200,000 generated tickets
	@$(BIN)/python -m benchmarks.curate

bench-redact: install ## redaction measured beside presidio; QUICK=1 within three minutes, RECORD=1 writes the result
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.redact

bench-labels: install ## label errors found on real questions, beside cleanlab; QUICK=1 within three minutes, RECORD=1
	@$(BIN)/python -m benchmarks.labels

bench-read: install ## MB/s of reading JSON Lines beside other libraries, and the rows each loses
	@$(BIN)/python -m benchmarks.read

bench-rag: install ## recall@k of a corpus's passages on real texts, next to rank-bm25; QUICK=1 within three minutes, RECORD=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rag

bench-abstain: install ## how often a certified threshold and a naive one miss their target, on real questions; QUICK=1, RECORD=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.abstain

bench-forget: install ## how long `tunegate data forget --plan` takes in a workspace of a million rows; QUICK=1, RECORD=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.forget

bench-gates: install ## what the gate promises, and a league of other tools' rules; QUICK=1 within three minutes, RECORD=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.gates

bench-weeks: install ## eight weekly trainings from the base or from the champion, in the toy world; QUICK=1 within three minutes, RECORD=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.weeks

bench-pairs: install ## how often SmolLM2's champion and next week's candidate differ: three quarters of an hour; QUICK=1 in the toy world, RECORD=1
	@$(BIN)/python -m benchmarks.pairs

bench-regressions: install ## planted regressions through whole runs: an hour on two cores; QUICK=1 in a toy world within two minutes, RECORD=1, KEEP=1
	@$(BIN)/python -m benchmarks.regressions

bench-train: install ## training and generation beside other trainers; QUICK=1 within three minutes, RECORD=1 writes the result
	@$(BIN)/python -m benchmarks.train

bench-memory: install ## peak memory of a training process, predicted and measured, on every path of a CPU; QUICK=1 within three minutes, RECORD=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.memory

bench-scale: install ## redaction by one process and by two nodes of a Ray cluster; QUICK=1 within three minutes, RECORD=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale

bench-start: install ## init and try of strangers' files, with defaults alone: half an hour; QUICK=1 within three minutes, RECORD=1
	@$(BIN)/python -m benchmarks.start

bench-records: install ## recorded results whose measured code has changed since; MARK=1 marks their pages
	@$(BIN)/python -m benchmarks.records

torture: install ## kills, full disks, damaged files, power cuts over all stages; QUICK=1 for minutes, RECORD=1 keeps it
	@$(BIN)/python -m benchmarks.torture

torture-135m: install ## the same on SmolLM2-135M; SCALE=0.1 for a tenth of the tries
	@SIZE=135m $(BIN)/python -m benchmarks.torture

lock: install ## compile requirements.lock from pyproject.toml, keeping its pins where they fit
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --all-extras \
		--output-file requirements.lock pyproject.toml

docs: install ## docs/reference/keys.md, and the site in .tunegate/site, without network: open .tunegate/site/index.html
	@$(BIN)/python -m infra.site.reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --config-file infra/site/mkdocs.yml

# In an environment of its own, which the first call fetches: its validator of formats makes Prefect's import in .venv
# 1.7 times as long (6.7 instead of 3.9 CPU-seconds). pip-licenses and pip-audit are in the lock.
sbom: install ## bill of materials of the installed release (CycloneDX), as sbom.cdx.json
	@$(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment --pyproject pyproject.toml \
		--output-reproducible --output-file sbom.cdx.json .venv

licences: install ## the installed packages by licence; fails at one that pyproject.toml does not allow
	@$(BIN)/pip-licenses --summary

# --strict: without it a package that the service does not know, as behind a mirror, counts as a good one.
audit: install ## advisories of the locked packages; fails where they cannot be read
	@$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --timeout 20 --progress-spinner off \
		|| { echo "audit: a package has a known weakness, or the advisories could not be read (they need pypi.org)" >&2; exit 1; }

fuzz: install ## readers, YAML loader, redactor and SQL guards for MINUTES (default 5), then 500 new examples of every property
	@FUZZ_MINUTES=$${MINUTES:-5} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/fuzz -p no:cacheprovider
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --dist worksteal -m hypothesis --hypothesis-profile=many --ignore=tests/system tests

stack: install ## start the whole natively: Postgres, Prefect, MLflow with logins, a worker, the endpoint (loopback)
	@$(BIN)/python -m infra.stack up

up: install ## start your Prefect server and this project's MLflow server (loopback)
	@$(BIN)/tunegate ops up

down: install ## stop this project's servers; your Prefect server ends after an hour without use
	@$(BIN)/tunegate ops down

clean: ## remove caches of tools; state under .tunegate/ stays
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
