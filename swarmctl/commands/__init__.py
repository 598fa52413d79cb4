"""The commands: for each the module and function that adds its flags, imported only when it is asked for.

This is loaded by every command, so it has plain classes and no more imports than it needs, as do all modules here:
one more module of the standard library is quickly a tenth of what a command takes.
"""

from __future__ import annotations


class Command:
    """`add(parser)` in the module commands/MODULE gives the parser its flags and `run`.

    usage: what follows the flags, where it is more than the names of the arguments.
    """

    __slots__ = ("add", "help", "module", "usage")

    def __init__(self, module: str, add: str, help: str, usage: str = "") -> None:
        self.module = module
        self.add = add
        self.help = help
        self.usage = usage


CONTAINER: dict[str, Command] = {
    "attach": Command("attach", "add_attach", "connect this terminal to a running container"),
    "commit": Command("commit", "add_commit", "make an image of what a container has changed"),
    "cp": Command(
        "copy", "add_cp", "copy files between a container and here", "CONTAINER:PATH PATH|- or PATH|- CONTAINER:PATH"
    ),
    "create": Command("run", "add_create", "create a container, without starting it"),
    "diff": Command("inspect", "add_diff", "list what changed in a container's files"),
    "exec": Command("execute", "add_exec", "run a command in a running container"),
    "export": Command("copy", "add_export", "write a container's files as a tar archive"),
    "inspect": Command("inspect", "add_container_inspect", "show containers in full"),
    "kill": Command("lifecycle", "add_kill", "send a signal to containers"),
    "logs": Command("logs", "add_logs", "show a container's output"),
    "ls": Command("listing", "add_ls", "list containers of this node"),
    "pause": Command("lifecycle", "add_pause", "freeze all processes of containers"),
    "port": Command("inspect", "add_port", "list a container's published ports"),
    "prune": Command("prune", "add_container_prune", "remove all stopped containers"),
    "rename": Command("lifecycle", "add_rename", "give a container another name"),
    "restart": Command("lifecycle", "add_restart", "stop and start containers"),
    "rm": Command("lifecycle", "add_rm", "remove containers"),
    "run": Command("run", "add_run", "create a container and start it"),
    "start": Command("attach", "add_start", "start stopped containers"),
    "stats": Command("stats", "add_stats", "show what containers use, as it changes"),
    "stop": Command("lifecycle", "add_stop", "stop containers"),
    "top": Command("inspect", "add_top", "list a container's processes"),
    "unpause": Command("lifecycle", "add_unpause", "let frozen containers go on"),
    "update": Command("update", "add_update", "change the limits of containers"),
    "wait": Command("lifecycle", "add_wait", "wait until containers stop, and print their exit codes"),
}

SYSTEM: dict[str, Command] = {
    "df": Command("usage", "add_df", "show what images, containers and volumes take on disk"),
    "dial-stdio": Command("info", "add_dial_stdio", "speak to the daemon through standard input and output, for ssh"),
    "events": Command("events", "add_events", "show what happens on this node, as it happens"),
    "info": Command("info", "add_info", "show this node and its place in the cluster"),
    "prune": Command("prune", "add_system_prune", "remove what nothing uses"),
}

CONTEXT: dict[str, Command] = {
    "create": Command("context", "add_create", "give a daemon a name"),
    "export": Command("context", "add_export", "write a context to a file"),
    "import": Command("context", "add_import", "read a context from a file"),
    "inspect": Command("context", "add_inspect", "show contexts in full"),
    "ls": Command("context", "add_ls", "list contexts"),
    "rm": Command("context", "add_rm", "remove contexts"),
    "show": Command("context", "add_show", "print the name of the context in use"),
    "update": Command("context", "add_update", "change a context"),
    "use": Command("context", "add_use", "choose the context to use"),
}

SERVICE: dict[str, Command] = {
    "create": Command("service", "add_create", "create a service"),
    "inspect": Command("service", "add_inspect", "show services in full"),
    "logs": Command("service", "add_logs", "show the output of a service's tasks, or of one task"),
    "ls": Command("service", "add_ls", "list services"),
    "ps": Command("service", "add_ps", "list the tasks of services, and why they are not placed or ended"),
    "rm": Command("service", "add_rm", "remove services"),
    "rollback": Command("service", "add_rollback", "go back to the spec before the last change"),
    "scale": Command("service", "add_scale", "set the number of tasks"),
    "update": Command("service", "add_update", "change a service"),
}

NODE: dict[str, Command] = {
    "demote": Command("node", "add_demote", "make workers of nodes"),
    "inspect": Command("node", "add_inspect", "show nodes in full"),
    "ls": Command("node", "add_ls", "list nodes; * is the one that answers"),
    "promote": Command("node", "add_promote", "make managers of nodes"),
    "ps": Command("node", "add_ps", "list the tasks on nodes"),
    "rm": Command("node", "add_rm", "remove nodes that have left"),
    "update": Command("node", "add_update", "change a node"),
}

SWARM: dict[str, Command] = {
    "init": Command("swarm", "add_init", "make a cluster, with this node as its first manager"),
    "join": Command("swarm", "add_join", "join a cluster, in the role that the token is for"),
    "join-token": Command("swarm", "add_join_token", "show, or change, the token to join with"),
    "leave": Command("swarm", "add_leave", "leave the cluster"),
    "update": Command("swarm", "add_update", "change the cluster's settings"),
}

NETWORK: dict[str, Command] = {
    "connect": Command("network", "add_connect", "connect a container to a network"),
    "create": Command("network", "add_create", "create a network"),
    "disconnect": Command("network", "add_disconnect", "disconnect a container from a network"),
    "inspect": Command("network", "add_inspect", "show networks in full"),
    "ls": Command("network", "add_ls", "list networks"),
    "rm": Command("network", "add_rm", "remove networks"),
}

IMAGE: dict[str, Command] = {
    "build": Command("build", "add_build", "make an image of a Dockerfile"),
    "history": Command("image", "add_history", "show the steps that an image was made by"),
    "import": Command("archives", "add_import", "make an image from a tar of a root file system"),
    "inspect": Command("image", "add_inspect", "show images in full"),
    "load": Command("archives", "add_load", "load an archive of images (docker save, OCI layout)"),
    "ls": Command("image", "add_ls", "list images"),
    "prune": Command("image", "add_prune", "remove images that nothing uses"),
    "pull": Command("registry", "add_pull", "get an image from a registry"),
    "push": Command("registry", "add_push", "send an image to a registry"),
    "rm": Command("image", "add_rm", "remove images"),
    "save": Command("archives", "add_save", "write images as an archive"),
    "tag": Command("image", "add_tag", "give an image another name"),
    "tree": Command("image", "add_tree", "list images with the platforms that they are for"),
}

BUILDER: dict[str, Command] = {
    "build": IMAGE["build"],
    "du": Command("builder", "add_du", "show what the cache of builds has"),
    "prune": Command("builder", "add_prune", "empty the cache of builds"),
}

MANIFEST: dict[str, Command] = {
    "annotate": Command("manifest", "add_annotate", "say what platform a manifest in a list is for"),
    "create": Command("manifest", "add_create", "make a list of manifests, here until it is pushed"),
    "inspect": Command("manifest", "add_inspect", "show a manifest as its registry has it, or a list that is here"),
    "push": Command("manifest", "add_push", "send a list of manifests to a registry"),
    "rm": Command("manifest", "add_rm", "remove lists of manifests that are here"),
}

GROUPS: dict[str, tuple[str, dict[str, Command]]] = {
    "container": ("containers of this node", CONTAINER),
    "system": ("this node's daemon", SYSTEM),
    "context": ("names for daemons", CONTEXT),
    "service": ("services of the cluster", SERVICE),
    "node": ("nodes of the cluster", NODE),
    "swarm": ("the cluster", SWARM),
    "network": ("networks", NETWORK),
    "image": ("images of this node", IMAGE),
    "builder": ("builds and their cache", BUILDER),
    "manifest": ("images for several platforms, in registries", MANIFEST),
}

# What can be said without its noun.
SHORT: dict[str, Command] = {
    **{verb: command for verb, command in CONTAINER.items() if verb not in ("ls", "prune", "inspect")},
    **{verb: IMAGE[verb] for verb in ("build", "history", "import", "load", "pull", "push", "save", "tag")},
    "images": IMAGE["ls"],
    "login": Command("registry", "add_login", "log in at a registry"),
    "logout": Command("registry", "add_logout", "forget the login at a registry"),
    "rmi": IMAGE["rm"],
    "search": Command("registry", "add_search", "find images in a registry"),
    "ps": CONTAINER["ls"],
    "inspect": Command("inspect", "add_inspect", "show containers, images, networks ... in full"),
    "events": SYSTEM["events"],
    "info": SYSTEM["info"],
    "version": Command("info", "add_version", "show versions of this command and of the daemon"),
}  # fmt: skip
