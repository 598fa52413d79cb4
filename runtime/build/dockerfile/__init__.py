"""The Dockerfile language: text to stages of instructions, and expansion of their words.  Pure: nothing is opened."""

from swarmd.runtime.build.dockerfile.errors import DockerfileError
from swarmd.runtime.build.dockerfile.expand import expand
from swarmd.runtime.build.dockerfile.parser import parse, parse_line

__all__ = ["DockerfileError", "expand", "parse", "parse_line"]
