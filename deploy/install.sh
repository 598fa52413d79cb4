#!/usr/bin/env bash
# Installs or upgrades swarmd on a Debian 12 machine: /opt/swarmd, swarmctl in PATH, and a systemd service.
# An upgrade restarts swarmd only: containers belong to their shims and keep running.
# Usage: deploy/install.sh            install or upgrade, and start
#        deploy/install.sh remove     stop swarmd and remove the program; containers' data in /var/lib/swarmd stays
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
[ "$(id -u)" = 0 ] || { echo "install: needs root" >&2; exit 1; }
command -v systemctl >/dev/null || { echo "install: needs systemd; without it, run deploy/setup.sh and .venv/bin/swarmd" >&2; exit 1; }

prefix=/opt/swarmd
unit=/etc/systemd/system/swarmd.service

remove() {
  say "stopping swarmd and removing the program"
  systemctl disable --now swarmd.service 2>/dev/null || true
  rm -rf "$prefix" "$unit" /usr/local/bin/swarmctl
  systemctl daemon-reload
  echo "kept: /var/lib/swarmd (images, containers, cluster state), and containers that run: they end with the host"
}

install_packages() {
  say "Debian packages"
  local had_etcd=yes
  dpkg-query -W -f '${db:Status-Status}' etcd-server 2>/dev/null | grep -qx installed || had_etcd=""
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    etcd-server nftables libnftables1 iproute2 util-linux python3-venv ca-certificates >/dev/null
  # swarmd runs its own etcd member, over mTLS; Debian's, which has neither, would take its ports.  An etcd that was
  # here before is somebody's.
  [ -n "$had_etcd" ] || systemctl disable --now etcd.service
}

install_program() {
  say "swarmd into $prefix"
  [ -x "$prefix/bin/python" ] || python3 -m venv "$prefix"
  "$prefix/bin/pip" install -q --disable-pip-version-check --upgrade .
  deploy/entry.sh "$prefix"
  ln -sf "$prefix/bin/swarmctl" /usr/local/bin/swarmctl
  install -m 0644 deploy/systemd/swarmd.service "$unit"
}

case "${1:-install}" in
  remove) remove; exit 0 ;;
  install) ;;
  *) echo "install: unknown argument $1: use no argument, or 'remove'" >&2; exit 2 ;;
esac
install_packages
install_program
say "starting"
systemctl daemon-reload
systemctl enable swarmd.service
systemctl restart swarmd.service
swarmctl version
