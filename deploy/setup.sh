#!/usr/bin/env bash
# Installs what swarmd needs on a Debian 12 machine, and the project into .venv beside this folder. Can be run twice.
# Usage: deploy/setup.sh [--dev]     --dev: also what the tests and checks need
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

[ "$(id -u)" = 0 ] || { echo "setup: needs root, to install packages" >&2; exit 1; }

packages=(etcd-server nftables libnftables1 iproute2 util-linux busybox-static ca-certificates python3-venv curl)
extras=""
if [ "${1:-}" = --dev ]; then
  packages+=(git iputils-ping apparmor crun runc podman qemu-system-x86 systemd docker-registry skopeo)
  extras="[dev]"
fi

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  say "installing Debian packages: ${missing[*]}"
  # Debian would start etcd at once, without TLS: swarmd runs its own member and wants only the program.
  policy=/usr/sbin/policy-rc.d
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; trap 'rm -f "$policy"' EXIT; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# A kernel only for tests/vm/run: unpacked, not installed, so this machine's own way to boot stays as it is.
vm=/var/cache/swarmd-vm
if [ "${1:-}" = --dev ] && [ "$(uname -m)" = x86_64 ] && ! compgen -G "$vm/boot/vmlinuz-*" >/dev/null; then
  say "fetching a kernel for tests in a virtual machine"
  apt-get update -qq
  image=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
  unpacked=$(mktemp -d)
  (cd "$unpacked" && apt-get download -qq -o APT::Sandbox::User=root "$image" && dpkg-deb -x ./*.deb .)
  busybox depmod -b "$unpacked" "${image#linux-image-}"
  mkdir -p "$vm"
  cp -r "$unpacked/lib" "$unpacked/boot" "$vm/"
  rm -r "$unpacked"
fi

python=$(command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: needs Python 3.11 or newer" >&2; exit 1; }
wanted=$(sha256sum pyproject.toml | cut -c1-16)$extras
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
  say "installing the project into .venv"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -e ".$extras"
  deploy/entry.sh .venv
  echo "$wanted" >.venv/installed
fi
