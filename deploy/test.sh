#!/usr/bin/env bash
# Everything a change must pass, as CI runs it: checks, unit and property tests, then the tests that make real containers,
# networks and clusters. Installs what it needs, needs root, leaves nothing behind.
# Usage: deploy/test.sh [check|unit|host|vm|cluster]...     default: all, in that order
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test: needs root: the tests make namespaces, mounts and cgroups" >&2; exit 1; }
deploy/setup.sh --dev
bin=$PWD/.venv/bin
say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }

check() {
  say "ruff, mypy, layers"
  "$bin/ruff" check . deploy/devcluster tests/vm/run
  "$bin/ruff" format --check . deploy/devcluster tests/vm/run
  "$bin/mypy" proto runtime agent manager swarmctl
  "$bin/lint-imports"
}
unit() {
  say "unit, property and simulation tests, and the store on real etcd"
  "$bin/pytest" -n 2 --dist worksteal -q -m 'not root and not cluster'
}
host() {
  say "containers and networks on this machine"
  tests/apart "$bin/pytest" -q -m 'root and not cluster and not vm'
}
vm() {
  say "containers where only cgroup v2 is, in a virtual machine"
  tests/vm/run
}
cluster() {
  say "clusters of three hosts"
  tests/apart "$bin/pytest" -q -m cluster --timeout 300
}

[ $# -gt 0 ] || set -- check unit host vm cluster
for part in "$@"; do
  case "$part" in
    check | unit | host | vm | cluster) "$part" ;;
    *) echo "test: no part $part: they are check, unit, host, vm and cluster" >&2; exit 2 ;;
  esac
done
