"""What a Dockerfile says, as values; words are as they stand in the file, with their variables and quotes."""

from swarmd.runtime.build.dockerfile.lines import Heredoc, Line
from swarmd.runtime.model import Struct


class Instruction(Struct, frozen=True):
    line: Line


class Argument(Struct, frozen=True):
    """value None: none is given."""

    name: str
    value: str | None = None


class Arg(Instruction, frozen=True):
    arguments: tuple[Argument, ...]


class From(Instruction, frozen=True):
    image: str
    platform: str = ""
    name: str = ""


class Run(Instruction, frozen=True):
    """words: of the exec form, or one line for the shell. mounts: the texts of --mount."""

    words: tuple[str, ...]
    in_shell: bool
    mounts: tuple[str, ...] = ()
    network: str = "default"
    insecure: bool = False


class Copy(Instruction, frozen=True):
    """COPY, or ADD: with remote sources and archives that are unpacked.

    from_: a stage, an image, or nothing for the build context; contents: sources that stand in the Dockerfile itself.
    """

    sources: tuple[str, ...]
    destination: str
    add: bool = False
    from_: str = ""
    owner: str = ""
    mode: str = ""
    linked: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    contents: tuple[Heredoc, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None  # None: archives of the build context are, those of URLs are not


class Pairs(Instruction, frozen=True):
    """ENV or LABEL."""

    pairs: tuple[tuple[str, str], ...]


class Words(Instruction, frozen=True):
    """EXPOSE or VOLUME. exact: words of a JSON list."""

    words: tuple[str, ...]
    exact: bool = False


class Value(Instruction, frozen=True):
    """USER, WORKDIR, STOPSIGNAL or MAINTAINER."""

    value: str


class Command(Instruction, frozen=True):
    """CMD, ENTRYPOINT or SHELL."""

    words: tuple[str, ...]
    in_shell: bool


class Healthcheck(Instruction, frozen=True):
    """test is empty for NONE. Durations in s."""

    test: tuple[str, ...]
    in_shell: bool = False
    interval: float | None = None
    timeout: float | None = None
    start_period: float | None = None
    start_interval: float | None = None
    retries: int | None = None


class Onbuild(Instruction, frozen=True):
    text: str


class Stage(Struct, frozen=True):
    """name: as AS gives it, in lower case, or its number."""

    index: int
    name: str
    begin: From
    instructions: tuple[Instruction, ...]


class Dockerfile(Struct, frozen=True):
    """arguments: those before the first FROM; warnings: sentences with file and line."""

    file: str
    escape: str
    arguments: tuple[Argument, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()

    def stage(self, name: str) -> Stage | None:
        """The last stage of a name, or the one of a number."""
        wanted = name.lower()
        for stage in reversed(self.stages):
            if wanted in (stage.name, str(stage.index)):
                return stage
        return None
