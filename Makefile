# `make up` and `make test` each work alone, first, in a clean clone: Python 3.11+, make and the package registries.
# PYTHON=python3.12 names a Python, TORCH=cpu or TORCH=cuda a build of torch: deploy/install.sh says more.
PYTHON_CHOSEN := $(if $(filter undefined,$(origin PYTHON)),,1)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
PEERS := infinity llama_cpp mlserver transformers
PROSE := $(wildcard *.md) docs protos meshgate gateway services certs bench deploy tests examples tools
AUDITED := $(wildcard requirements*.lock)
CANARY := .venv-canary
PROTOS := $(wildcard protos/meshgate/v1/*.proto)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: up test test-e2e test-attack test-kinds check audit canary-grpcio canary-transformers prose proto sdk reference lock dist release-check bench bench-gateway bench-services clean install serving developing benching documenting docs docs-serve train-sentiment

up: serving ## set everything up and serve until Ctrl-C
	@$(BIN)/meshgate up $(ARGS)

test: developing ## set everything up and run the unit and integration tests; the unit tests have a floor of coverage
	$(if $(ARGS),$(BIN)/pytest $(ARGS),$(BIN)/pytest tests/unit -n 2 --dist loadfile --cov --cov-report=)
	$(if $(ARGS),,$(BIN)/pytest tests/integration)

test-e2e: developing ## run the tests with the real default models
	$(BIN)/pytest tests/e2e $(ARGS)

test-attack: developing ## run the tests of hostile input
	$(BIN)/pytest tests/attack $(ARGS)

test-kinds: developing ## hold every kind of model against transformers
	$(BIN)/pytest tests/kinds $(ARGS)

check: developing ## types, lint, imports, contract, fresh stubs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format -d --exit-code
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb
	$(RUN) -m tools.fresh_stubs
	$(RUN) -m tools.unasync
	$(RUN) -m tools.fresh_locks
	$(RUN) -m tools.reference
	$(RUN) -m tools.links
	$(RUN) -m tools.prose
	$(RUN) -m codespell_lib $(PROSE)

audit: developing ## look for known vulnerabilities in the locks; it asks PyPI, so it is no part of check
	$(BIN)/pip-audit --strict --disable-pip --no-deps $(AUDITED:%=--requirement %)

canary-grpcio: NEWER := grpcio grpcio-status grpcio-health-checking grpcio-reflection
canary-transformers: NEWER := transformers
canary-grpcio canary-transformers: ## run the tests with the newest release, whatever is pinned
	@PYTHON='$(PYTHON)' PYTHON_CHOSEN='$(PYTHON_CHOSEN)' VENV='$(CANARY)' bash deploy/install.sh developing
	$(CANARY)/bin/python -m pip install --quiet --upgrade $(NEWER)
	$(CANARY)/bin/pytest tests/integration/rpc/test_grpcio_canary.py
	$(CANARY)/bin/pytest $(ARGS)

install: developing

# What serves, and no more; what develops, too; what measures, too. They look by themselves whether anything is to be done.
serving developing benching documenting:
	@PYTHON='$(PYTHON)' PYTHON_CHOSEN='$(PYTHON_CHOSEN)' VENV='$(VENV)' bash deploy/install.sh $@

prose: developing ## what the rules of prose say of every file, or of ARGS
	@$(RUN) -m tools.prose --all $(ARGS)

proto: developing ## write the generated stubs
	$(RUN) -m grpc_tools.protoc -I protos --python_out=. --grpc_python_out=. --mypy_out=quiet:. \
		--mypy_grpc_out=quiet:. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc $(PROTOS)

sdk: developing ## write the blocking half of the SDK
	$(RUN) -m tools.unasync --write

reference: developing ## write docs/reference
	$(RUN) -m tools.reference --write

docs: documenting ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "build/site/index.html"

docs-serve: documenting ## the site on 127.0.0.1:8000, made anew when a page changes
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve --livereload

lock: developing ## resolve the lock files anew
	bash deploy/lock.sh $(BIN)/pip-compile

dist: developing ## build the wheel and the source distribution into dist/
	$(RUN) -m build --no-isolation --outdir dist

release-check: ## version, changelog and manifests agree: TAG=v0.1.0
	@bash deploy/release.sh check "$(TAG)"

train-sentiment: developing ## train the sentiment classifier again
	$(RUN) -m services.classification.training

bench: bench-gateway bench-services ## measure this machine

bench-gateway: benching ## the gateway between a bare pass-through and Envoy
	$(RUN) -m bench $(ARGS)

bench-services: benching $(PEERS:%=.venv-bench/%/installed) ## the models through the whole secure path and their peers
	$(RUN) -m bench.services $(ARGS)

# A peer that can't be installed is left out of the tables, and tried again the next time.
.venv-bench/%/installed: bench/services/peers/%.lock
	@echo "installing $* to compare with (a few minutes)"
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	-@grep '^torch==' $(@:.venv-bench/%/installed=bench/services/peers/%.in) | xargs -r $(@D)/bin/python -m pip install --quiet && \
		CMAKE_BUILD_PARALLEL_LEVEL=$$(nproc) $(@D)/bin/python -m pip install --quiet --require-hashes --requirement $< && touch $@

clean: ## remove what was installed and built; certificates, keys and audit logs under .meshgate stay
	rm -rf $(VENV) $(VENV).lock $(CANARY) $(CANARY).lock .venv-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
