"""Contexts that a build has besides its own: what FROM and --from find by these names, before stages and images."""

from collections.abc import Mapping

from swarmd.runtime.build.trees import Tree
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.references import Reference
from swarmd.runtime.model import Struct


class Named(Struct, frozen=True):
    """trees: directories; images: names of those that are meant instead."""

    trees: dict[str, Tree]
    images: dict[str, str]

    def tree(self, name: str) -> Tree | None:
        return self.trees.get(plain(name))

    def image(self, name: str) -> str:
        """The image that is meant by a name, which may be that name."""
        return self.images.get(plain(name), name)

    def has(self, name: str) -> bool:
        return plain(name) in self.trees or plain(name) in self.images


def plain(name: str) -> str:
    """A name in the one way that all ways to write it lead to: debian, debian:latest, docker.io/library/debian."""
    try:
        return Reference.parse(name).familiar.removesuffix(":latest")
    except Invalid:  # a stage may be called what no image can
        return name.lower()


def split(tree: Tree, prefixes: Mapping[str, str]) -> tuple[Tree, dict[str, Tree]]:
    """The tree of a context, and those of directories that travel in it, by how the names of what is in them begin."""
    found: dict[str, Tree] = {}
    left = dict(tree.entries)
    for name, prefix in prefixes.items():
        own = [entry for path, entry in left.items() if path.startswith(prefix)]
        for entry in own:
            del left[entry.path]
        entries = (entry._replace(path=entry.path.removeprefix(prefix)) for entry in own)
        found[name] = Tree(f"build context {name}", entries, tree.source)
    return Tree(tree.name, left.values(), tree.source, tree.left_out), found


NONE = Named({}, {})
