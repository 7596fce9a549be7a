#!/usr/bin/env bash
# Resolves pyproject.toml into the lock files. torch is pinned to its public version: a machine whose registry offers a
# CPU build takes it, any other takes PyPI's, with the CUDA packages that build brings along.
set -euo pipefail
compile=$1
shared=(--quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --allow-unsafe)
pin() { sed -E -i 's/^torch==([0-9.]+)\+[a-z0-9.]+/torch==\1/' "$1"; }
"$compile" "${shared[@]}" --extra gateway --extra services --extra local --output-file requirements.lock pyproject.toml
pin requirements.lock
"$compile" "${shared[@]}" --extra gateway --extra services --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
pin requirements-dev.lock
"$compile" "${shared[@]}" --extra docs --constraint requirements-dev.lock --output-file requirements-docs.lock pyproject.toml
"$compile" "${shared[@]}" --extra gateway --extra bench --constraint requirements-dev.lock --output-file requirements-bench.lock pyproject.toml

# Each peer of the benchmarks is installed in an environment of its own.
for peer in bench/services/peers/*.in; do
  "$compile" "${shared[@]}" --no-annotate --output-file "${peer%.in}.lock" "$peer"
  pin "${peer%.in}.lock"
done
