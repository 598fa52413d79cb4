"""The files of /etc that are the container's own: hostname, hosts, resolv.conf."""

from pathlib import Path

from swarmd.runtime.effective import hostname
from swarmd.runtime.model import ContainerConfig
from swarmd.runtime.ports import Sandbox

NAMES = ("hostname", "hosts", "resolv.conf")


def contents(id: str, config: ContainerConfig, sandbox: Sandbox) -> dict[str, bytes]:
    return {
        "hostname": f"{hostname(id, config)}\n".encode(),
        "hosts": hosts(config, sandbox).encode(),
        "resolv.conf": resolv_conf(config, sandbox).encode(),
    }


def hosts(config: ContainerConfig, sandbox: Sandbox) -> str:
    if not sandbox.netns_path:
        lines = Path("/etc/hosts").read_text().splitlines()
    else:
        lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{' '.join(names)}" for address, names in sandbox.hosts]
    gateway = next((network.gateway for network in sandbox.networks if network.gateway), "127.0.0.1")
    for entry in config.extra_hosts:
        name, _, address = entry.partition(":")
        lines.append(f"{gateway if address == 'host-gateway' else address}\t{name}")
    return "\n".join(lines) + "\n"


def resolv_conf(config: ContainerConfig, sandbox: Sandbox) -> str:
    """The container's resolvers: those asked for, those of its networks, or the host's own; see resolv.conf(5)."""
    servers, text = config.dns.nameservers or sandbox.nameservers, _host_resolv_conf()
    if not servers and not sandbox.netns_path:
        return text
    lines = [f"nameserver {server}" for server in servers]
    # Short names mean here what they mean on the host, unless another meaning, or with "." none, is asked for.
    for key, own in (("search", config.dns.search), ("options", config.dns.options)):
        theirs = (line.split() for line in reversed(text.splitlines()))
        words = own or next((tuple(words[1:]) for words in theirs if words[:1] == [key]), ())
        lines += [f"{key} {' '.join(words)}"] if words and words != (".",) else []
    return "".join(f"{line}\n" for line in lines)


def _host_resolv_conf() -> str:
    try:
        return Path("/etc/resolv.conf").read_text()
    except FileNotFoundError:
        return ""
