"""A client of registries, by the distribution specification 1.1; it knows nothing of stores. See registries.py.

registries.py   what a daemon holds          login.py, search.py   what needs no repository
repository.py   manifests and tags           downloads.py, uploads.py   blobs
client.py       a request: key, tries, refusal in words
keys.py         tokens                       retries.py, failures.py    when to try again, what to say
transport.py    TLS, proxies, redirects      settings.py, trust.py      mirrors, insecure registries, certificates
"""

from swarmd.runtime.registry.credentials import (
    ANONYMOUS,
    Credentials,
    credentials_by_registry,
    credentials_from_header,
    credentials_from_json,
)
from swarmd.runtime.registry.registries import Registries
from swarmd.runtime.registry.repository import Repository
from swarmd.runtime.registry.search import Found
from swarmd.runtime.registry.settings import Patience, Settings

__all__ = [
    "ANONYMOUS",
    "Credentials",
    "Found",
    "Patience",
    "Registries",
    "Repository",
    "Settings",
    "credentials_by_registry",
    "credentials_from_header",
    "credentials_from_json",
]
