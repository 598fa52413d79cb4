"""Names of images, in full as stored and short as shown: demo is docker.io/library/demo:latest."""

import re

from swarmd.runtime.errors import Invalid

_DEFAULT_DOMAIN = "docker.io"
_DEFAULT_NAMESPACE = "library"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_FORM = re.compile(
    rf"(?P<domain>[A-Za-z0-9][A-Za-z0-9.\-]*(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?)/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.\-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


def normalised(ref: str) -> str:
    """The full name, with a tag unless a digest is given; Invalid if it can't be a name."""
    first, slash, rest = ref.partition("/")
    is_domain = slash and (set(".:") & set(first) or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (_DEFAULT_DOMAIN, ref)
    if domain in ("index.docker.io", _DEFAULT_DOMAIN):
        domain = _DEFAULT_DOMAIN
        if "/" not in path:
            path = f"{_DEFAULT_NAMESPACE}/{path}"
    found = _FORM.fullmatch(f"{domain}/{path}")
    if found is None:
        why = "names are lower case" if ref != ref.lower() else "the form is [host[:port]/]name[:tag]"
        raise Invalid(f"image name {ref!r} is not valid: {why}")
    tag = f":{found['tag']}" if found["tag"] else "" if found["digest"] else ":latest"
    digest = f"@{found['digest']}" if found["digest"] else ""
    return f"{domain}/{found['path']}{tag}{digest}"


def familiar(ref: str) -> str:
    """A full name without what goes without saying; the tag stays."""
    return ref.removeprefix(f"{_DEFAULT_DOMAIN}/").removeprefix(f"{_DEFAULT_NAMESPACE}/") if _is_default(ref) else ref


def _is_default(ref: str) -> bool:
    return ref.startswith(f"{_DEFAULT_DOMAIN}/")
