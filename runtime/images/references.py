"""Names of images, in full as stored and short as shown: demo is docker.io/library/demo:latest."""

import re

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import Struct

_DEFAULT_DOMAIN = "docker.io"
_DEFAULT_NAMESPACE = "library"
_LONGEST = 255  # characters of domain and path, as registries have it
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_FORM = re.compile(
    rf"(?P<domain>[A-Za-z0-9][A-Za-z0-9.\-]*(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?)/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.\-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?",
    re.ASCII,
)


class Reference(Struct, frozen=True):
    """A name in full; one of tag and digest is given, or both. str() is the form that is stored."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a name as users write it: tagged latest unless it says which; Invalid if it can't be a name."""
        domain, path = _split(text)
        found = _FORM.fullmatch(f"{domain}/{path}")
        if found is None:
            why = "names are lower case" if text != text.lower() else "the form is [host[:port]/]name[:tag][@digest]"
            raise Invalid(f"image name {text[:300]!r} is not valid: {why}")
        if len(domain) + 1 + len(found["path"]) > _LONGEST:
            raise Invalid(f"image name {text[:60]}... is not valid: it is longer than {_LONGEST} characters")
        digest = found["digest"] or ""
        return cls(domain=domain, path=found["path"], tag=found["tag"] or ("" if digest else "latest"), digest=digest)

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """As people write it: without what goes without saying; the tag stays."""
        return familiar(str(self))

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


def normalised(ref: str) -> str:
    """The full name, with a tag unless a digest is given; Invalid if it can't be a name."""
    return str(Reference.parse(ref))


def familiar(ref: str) -> str:
    """A full name without what goes without saying; the tag stays."""
    if not ref.startswith(f"{_DEFAULT_DOMAIN}/"):
        return ref
    path = ref.removeprefix(f"{_DEFAULT_DOMAIN}/")
    short = path.removeprefix(f"{_DEFAULT_NAMESPACE}/")
    return path if "/" in short else short


def _split(text: str) -> tuple[str, str]:
    """Domain and the rest: the first part is a host if it looks like none of Docker Hub's namespaces."""
    first, slash, rest = text.partition("/")
    is_domain = slash and (set(".:") & set(first) or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (_DEFAULT_DOMAIN, text)
    if domain in ("index.docker.io", _DEFAULT_DOMAIN):
        domain = _DEFAULT_DOMAIN
        if "/" not in path:
            path = f"{_DEFAULT_NAMESPACE}/{path}"
    return domain, path
