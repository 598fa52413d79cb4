"""The name of this run of the tests, for what they make outside namespaces of their own: cgroups, sockets, files."""

import secrets

RUN = secrets.token_hex(2)
