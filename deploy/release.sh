#!/usr/bin/env bash
# What a release needs of the sources: `deploy/release.sh check TAG` and `deploy/release.sh notes TAG`.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "$*" >&2; exit 1; }
usage() { fail "usage: deploy/release.sh check|notes vMAJOR.MINOR.PATCH"; }

[ $# = 2 ] || usage
[[ $2 =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || usage
version=${2#v}

# The version's section of the changelog, without its heading.
notes() {
  awk -v heading="## $version - " '
    index($0, "## ") == 1 { inside = index($0, heading) == 1; next }
    inside' CHANGELOG.md
}

check() {
  grep -qx "__version__ = \"$version\"" meshgate/__init__.py || fail "meshgate/__init__.py has another version than $version"
  grep -qE "^## $version - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md || fail "CHANGELOG.md has no dated section for $version"
  [[ $(notes) == *$'\n- '* ]] || fail "CHANGELOG.md lists nothing for $version"
  ! grep 'newTag:' deploy/kustomization.yaml | grep -qv "newTag: $version }" || fail "deploy/kustomization.yaml names images of another version than $version"
}

case $1 in
  check) check ;;
  notes) notes ;;
  *) usage ;;
esac
