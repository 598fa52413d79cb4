#!/usr/bin/env bash
# From a fresh machine to a scaled service on three hosts.
#   deploy/quickstart.sh         install, start three hosts, form a cluster, deploy, scale, show it answering
#   deploy/quickstart.sh down    stop everything and remove all it made, data included
set -euo pipefail
cd "$(dirname "$0")/.."
devcluster() { deploy/devcluster --name quickstart "$@"; }
say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
show() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }
on() { local host=$1; shift; printf '\033[36m%s$ %s\033[0m\n' "$host" "$*"; devcluster exec "$host" -- "$@"; }

[ "$(id -u)" = 0 ] || { echo "quickstart: needs root: it makes namespaces, links and cgroups" >&2; exit 1; }
case "${1:-up}" in
  up) ;;
  down) devcluster down; echo "quickstart: everything is gone"; exit 0 ;;
  *) echo "quickstart: unknown argument $1: use no argument, or 'down'" >&2; exit 2 ;;
esac

deploy/setup.sh

say "three hosts: network namespaces, each with its own address, data, processes and cgroups"
devcluster up --hosts 3 --managers 0

state() { devcluster exec "$1" -- swarmctl info --format '{{.Swarm.LocalNodeState}}'; }
address() { devcluster status | awk -v host="$1" '$1 == host { print $2 }'; }

if [ "$(state host1)" != active ]; then
  say "a cluster: host1 makes it, host2 and host3 join with its token"
  on host1 swarmctl swarm init --advertise-addr "$(address host1)"
fi
for host in host2 host3; do
  if [ "$(state $host)" != active ]; then
    token=$(devcluster exec host1 -- swarmctl swarm join-token -q worker)
    on $host swarmctl swarm join --token "$token" --advertise-addr "$(address $host)" "$(address host1):2377"
  fi
done
on host1 swarmctl node ls

say "a demo image, built on host1 alone: the other hosts fetch it from there"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/rootfs/{bin,etc,proc,sys,dev,tmp,root}
cp /bin/busybox "$work/rootfs/bin/busybox"
for applet in $(/bin/busybox --list); do
  [ "$applet" = busybox ] || ln -s busybox "$work/rootfs/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$work/rootfs/etc/passwd"
echo 'root:x:0:' >"$work/rootfs/etc/group"
mkdir "$work/demo"
tar -C "$work/rootfs" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/demo/busybox.tar" .
cat >"$work/demo/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD busybox.tar /
RUN mkdir /www
COPY --chmod=755 <<'SERVE' /bin/serve
#!/bin/sh
echo "hello from $(hostname)" > /www/index.html
exec httpd -f -p 80 -h /www
SERVE
EXPOSE 80
HEALTHCHECK --interval=2s CMD wget -q -O /dev/null http://127.0.0.1/
STOPSIGNAL SIGKILL
CMD ["/bin/serve"]
DOCKERFILE
on host1 swarmctl build -t demo "$work/demo"

if devcluster exec host1 -- swarmctl service inspect web >/dev/null 2>&1; then
  say "the service web is there from an earlier run: back to three replicas"
  on host1 swarmctl service scale web=3
else
  say "a service of three replicas, published on port 8080 of every host"
  on host1 swarmctl service create --name web --replicas 3 --publish 8080:80 --limit-memory 64m demo
fi
on host1 swarmctl service ps web

say "five replicas"
on host1 swarmctl service scale web=5
on host1 swarmctl service ls
on host1 swarmctl service ps --filter desired-state=running web

say "every replica answers, through every host"
for host in host1 host2 host3; do
  url="http://$(address $host):8080/"
  for _ in $(seq 15); do curl -sS --max-time 5 "$url"; done | sort | uniq -c | sed "s|^|$url |"
done

say "yours to try"
cat <<TEXT
  eval "\$(deploy/devcluster --name quickstart env host1)"; export PATH=\$PWD/.venv/bin:\$PATH
  swarmctl service scale web=8
  deploy/devcluster --name quickstart kill host3       # its replicas move
  swarmctl service ps web
  deploy/quickstart.sh down
TEXT
