"""The text of our nftables tables: one per swarmd on the host, one in each sandbox that uses service addresses.

Pure.  Published ports, bridges and members live in maps and sets, so attaching a container adds elements and no rule;
only the round robin of a service's port or address is a chain of its own, rewritten whole when its back ends change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BridgeRule:
    name: str
    subnet: str
    internal: bool = False
    overlay: bool = False


@dataclass(frozen=True, slots=True)
class PortRule:
    protocol: str
    host_ip: str  # "" is every address
    host_port: int
    address: str
    container_port: int


@dataclass(frozen=True, slots=True)
class Balanced:
    """An ingress port and the tasks that serve it."""

    protocol: str
    published: int
    target: int
    backends: tuple[str, ...]

    @property
    def chain(self) -> str:
        return f"ingress_{self.protocol}_{self.published}"


TABLE = """
add table ip {t}
delete table ip {t}
table ip {t} {{
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ingress {{ type inet_proto . inet_service : verdict; }}
  set idle {{ type inet_proto . inet_service; }}
  set bridges {{ type ifname; }}
  set overlays {{ type ifname; }}
  set internals {{ type ifname; }}
  set same {{ type ifname . ifname; }}
  set members {{ type ifname . ipv4_addr; flags interval; }}
  set local_tasks {{ type ipv4_addr; }}
  chain guard {{
    type filter hook prerouting priority -300;
    iifname @bridges ip daddr 127.0.0.0/8 drop;
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @ports_at;
    dnat ip to meta l4proto . th dport map @ports;
    meta l4proto . th dport vmap @ingress;
  }}
  chain arriving {{ type nat hook prerouting priority -101; fib daddr type local jump publish; }}
  chain own {{ type nat hook output priority -101; fib daddr type local jump publish; }}
  chain leaving {{
    type nat hook postrouting priority 99;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade;
    ct status dnat oifname @overlays ip daddr != @local_tasks masquerade;
    ct status dnat oifname . ip saddr @members masquerade;
    oifname @bridges accept;
    jump outward;
  }}
  chain outward {{ }}
  chain forwarding {{
    type filter hook forward priority 0;
    iifname . oifname @same accept;
    iifname @internals drop;
    oifname @internals drop;
    ct state established,related accept;
    ct status dnat accept;
    oifname @bridges drop;
  }}
  chain refuse {{
    type filter hook input priority 0;
    fib daddr type local meta l4proto . th dport @idle jump refused;
  }}
  chain refused {{ meta l4proto tcp reject with tcp reset; reject; }}
}}
"""


def table(name: str) -> str:
    return TABLE.format(t=name)


def elements(verb: str, table_name: str, holder: str, items: Iterable[str]) -> str:
    joined = ", ".join(items)
    return f"{verb} element ip {table_name} {holder} {{ {joined} }}\n" if joined else ""


def bridge(verb: str, table_name: str, rule: BridgeRule) -> str:
    name = f'"{rule.name}"'
    text = elements(verb, table_name, "bridges", [name])
    text += elements(verb, table_name, "same", [f"{name} . {name}"])
    text += elements(verb, table_name, "members", [f"{name} . {rule.subnet}"])
    text += elements(verb, table_name, "overlays", [name] if rule.overlay else [])
    text += elements(verb, table_name, "internals", [name] if rule.internal else [])
    return text


def outward(table_name: str, subnets: Iterable[str]) -> str:
    """Who may speak to the world under the host's address."""
    text = f"flush chain ip {table_name} outward\n"
    return text + "".join(f"add rule ip {table_name} outward ip saddr {s} masquerade\n" for s in subnets)


def ports(verb: str, table_name: str, rules: Sequence[PortRule]) -> str:
    def value(rule: PortRule) -> str:
        # An element of a map is deleted by its key alone.
        return f" : {rule.address} . {rule.container_port}" if verb == "add" else ""

    everywhere = [f"{r.protocol} . {r.host_port}{value(r)}" for r in rules if not r.host_ip]
    at = [f"{r.host_ip} . {r.protocol} . {r.host_port}{value(r)}" for r in rules if r.host_ip]
    return elements(verb, table_name, "ports", everywhere) + elements(verb, table_name, "ports_at", at)


def ingress(table_name: str, old: Mapping[str, Balanced], new: Mapping[str, Balanced]) -> str:
    """Return the one transaction that turns the old set of ingress ports into the new one."""
    text = ""
    for chain in sorted(old.keys() | new.keys()):
        was, now = old.get(chain), new.get(chain)
        if was == now:
            continue
        if was:
            text += _ingress_element("delete", table_name, was)
        if now and now.backends:
            body = ", ".join(f"{i} : {address} . {now.target}" for i, address in enumerate(now.backends))
            text += f"add chain ip {table_name} {chain}\nflush chain ip {table_name} {chain}\n"
            text += f"add rule ip {table_name} {chain} meta l4proto {now.protocol} "
            text += f"dnat ip to numgen inc mod {len(now.backends)} map {{ {body} }}\n"
        if now:
            text += _ingress_element("add", table_name, now)
        if was and was.backends and not (now and now.backends):
            text += f"flush chain ip {table_name} {chain}\ndelete chain ip {table_name} {chain}\n"
    return text


def _ingress_element(verb: str, table_name: str, port: Balanced) -> str:
    key = f"{port.protocol} . {port.published}"
    if not port.backends:
        return elements(verb, table_name, "idle", [key])
    return elements(verb, table_name, "ingress", [f"{key} : goto {port.chain}" if verb == "add" else key])


def virtual_addresses(vips: Mapping[str, Sequence[str]]) -> str:
    """The table inside a sandbox: each service address leads to its serving tasks in turn, or refuses at once."""
    text = "add table ip swarmd\ndelete table ip swarmd\n"
    if not vips:
        return text
    chains, routes, idle = "", [], []
    for vip, backends in sorted(vips.items()):
        if not backends:
            idle.append(vip)
            continue
        chain = "vip_" + vip.replace(".", "_")
        body = ", ".join(f"{i} : {address}" for i, address in enumerate(backends))
        chains += f"  chain {chain} {{ dnat to numgen random mod {len(backends)} map {{ {body} }}; }}\n"
        routes.append(f"{vip} : goto {chain}")
    text += "table ip swarmd {\n" + chains
    if routes:
        text += "  chain own { type nat hook output priority -100; "
        text += f"ip daddr vmap {{ {', '.join(routes)} }}; }}\n"
    if idle:
        text += "  chain refuse { type filter hook output priority 0; "
        text += f"ip daddr {{ {', '.join(idle)} }} jump refused; }}\n"
        text += "  chain refused { meta l4proto tcp reject with tcp reset; reject; }\n"
    return text + "}\n"
