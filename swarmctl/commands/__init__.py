"""The commands: for each the module and function that adds its flags, imported only when it is asked for."""

from typing import NamedTuple


class Command(NamedTuple):
    """`add(parser)` in the module commands/MODULE gives the parser its flags and `run`."""

    module: str
    add: str
    help: str
    usage: str = ""


_CONTAINER = "CONTAINER"
_EACH = "CONTAINER [CONTAINER...]"
_IMAGE = "IMAGE [COMMAND] [ARG...]"

CONTAINER: dict[str, Command] = {
    "attach": Command("attach", "add_attach", "connect this terminal to a running container", _CONTAINER),
    "cp": Command(
        "copy", "add_cp", "copy files between a container and here", "CONTAINER:PATH PATH|- or PATH|- CONTAINER:PATH"
    ),
    "create": Command("run", "add_create", "create a container, without starting it", _IMAGE),
    "diff": Command("inspect", "add_diff", "list what changed in a container's files", _CONTAINER),
    "exec": Command("execute", "add_exec", "run a command in a running container", "CONTAINER COMMAND [ARG...]"),
    "export": Command("copy", "add_export", "write a container's files as a tar archive", _CONTAINER),
    "inspect": Command("inspect", "add_container_inspect", "show containers in full", _EACH),
    "kill": Command("lifecycle", "add_kill", "send a signal to containers", _EACH),
    "logs": Command("logs", "add_logs", "show a container's output", _CONTAINER),
    "ls": Command("listing", "add_ls", "list containers of this node"),
    "pause": Command("lifecycle", "add_pause", "freeze all processes of containers", _EACH),
    "port": Command("inspect", "add_port", "list a container's published ports", "CONTAINER [PORT[/PROTOCOL]]"),
    "prune": Command("prune", "add_container_prune", "remove all stopped containers"),
    "rename": Command("lifecycle", "add_rename", "give a container another name", "CONTAINER NAME"),
    "restart": Command("lifecycle", "add_restart", "stop and start containers", _EACH),
    "rm": Command("lifecycle", "add_rm", "remove containers", _EACH),
    "run": Command("run", "add_run", "create a container and start it", _IMAGE),
    "start": Command("attach", "add_start", "start stopped containers", _EACH),
    "stats": Command("stats", "add_stats", "show what containers use, as it changes", "[CONTAINER...]"),
    "stop": Command("lifecycle", "add_stop", "stop containers", _EACH),
    "top": Command("inspect", "add_top", "list a container's processes", "CONTAINER [PS-OPTIONS]"),
    "unpause": Command("lifecycle", "add_unpause", "let frozen containers go on", _EACH),
    "update": Command("update", "add_update", "change the limits of containers", _EACH),
    "wait": Command("lifecycle", "add_wait", "wait until containers stop, and print their exit codes", _EACH),
}

SYSTEM: dict[str, Command] = {
    "df": Command("usage", "add_df", "show what images, containers and volumes take on disk"),
    "dial-stdio": Command("info", "add_dial_stdio", "speak to the daemon through standard input and output, for ssh"),
    "events": Command("events", "add_events", "show what happens on this node, as it happens"),
    "info": Command("info", "add_info", "show this node and its place in the cluster"),
    "prune": Command("prune", "add_system_prune", "remove what nothing uses"),
}

CONTEXT: dict[str, Command] = {
    "create": Command("context", "add_create", "give a daemon a name", "CONTEXT"),
    "export": Command("context", "add_export", "write a context to a file", "CONTEXT [FILE|-]"),
    "import": Command("context", "add_import", "read a context from a file", "CONTEXT FILE|-"),
    "inspect": Command("context", "add_inspect", "show contexts in full", "[CONTEXT...]"),
    "ls": Command("context", "add_ls", "list contexts"),
    "rm": Command("context", "add_rm", "remove contexts", "CONTEXT [CONTEXT...]"),
    "show": Command("context", "add_show", "print the name of the context in use"),
    "update": Command("context", "add_update", "change a context", "CONTEXT"),
    "use": Command("context", "add_use", "choose the context to use", "CONTEXT"),
}

GROUPS: dict[str, tuple[str, dict[str, Command]]] = {
    "container": ("containers of this node", CONTAINER),
    "system": ("this node's daemon", SYSTEM),
    "context": ("names for daemons", CONTEXT),
}

# What can be said without its noun.
SHORT: dict[str, Command] = {
    **{verb: command for verb, command in CONTAINER.items() if verb not in ("ls", "prune", "inspect")},
    "ps": CONTAINER["ls"],
    "inspect": Command("inspect", "add_inspect", "show containers, images, networks ... in full", "NAME [NAME...]"),
    "events": SYSTEM["events"],
    "info": SYSTEM["info"],
    "version": Command("info", "add_version", "show versions of this command and of the daemon"),
}  # fmt: skip

# Nouns that add all their verbs themselves: commands/NOUN has `add(verbs)`.
NOUNS: dict[str, str] = {
    "service": "services: create, ls, ps, inspect, scale, update, rollback, rm, logs",
    "node": "nodes: ls, ps, inspect, update, promote, demote, rm",
    "swarm": "the cluster: init, join, join-token, leave, update",
    "network": "networks: create, ls, inspect, rm",
    "image": "images of this node: import, load, ls, inspect, rm",
}
