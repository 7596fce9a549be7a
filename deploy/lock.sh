#!/usr/bin/env bash
# Resolves pyproject.toml into the lock files, each line with the hashes of its files as the registry lists them.
# torch is in no lock: its build for a CPU and its build for a GPU share a version and no hash, so the version is in
# requirements-torch.lock, by hand, and the hashes of the packages that its build for a GPU needs are in no lock either.
set -euo pipefail
compile=$1
shared=(--quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header
  --generate-hashes --unsafe-package torch)

# lock FILE ARGUMENTS: pip-compile ends a lock without torch with a warning, which is of no use to a reader.
lock() {
  local file=$1
  shift
  "$compile" "${shared[@]}" "$@" --output-file "$file"
  sed -i '/^# WARNING: /,$d' "$file"
  sed -i -e :a -e '/^\n*$/{$d;N;ba' -e '}' "$file"
}

lock requirements.lock --extra gateway --extra services --extra local pyproject.toml
lock requirements-dev.lock --extra gateway --extra services --extra dev --constraint requirements.lock pyproject.toml
lock requirements-docs.lock --extra docs --constraint requirements-dev.lock pyproject.toml
lock requirements-bench.lock --extra gateway --extra bench --constraint requirements-dev.lock pyproject.toml

# An image holds what its extra needs, and nothing that another one needs alone.
for image in gateway services; do
  lock "deploy/$image.lock" --no-annotate --extra "$image" --constraint requirements.lock pyproject.toml
done

# Each peer of the benchmarks is installed in an environment of its own.
for peer in bench/services/peers/*.in; do
  lock "${peer%.in}.lock" --no-annotate "$peer"
done
