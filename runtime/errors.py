"""The runtime's errors, named by the reaction they call for.

    RuntimeFault
     ├─ NotFound      no such container, image or network
     ├─ Conflict      the name is taken, or the state does not allow it
     ├─ Invalid       the configuration can never work as it is
     ├─ ReadOnly      it would have to be written to
     ├─ PortInUse     a published port is taken on this host
     ├─ Exhausted     no space, address or process left
     ├─ Unauthorized  a registry wants to know who asks, or doesn't believe it
     ├─ Denied        a registry knows who asks, and says no
     ├─ Unavailable   a registry can't be reached, or can't answer now: later or elsewhere it may
     │   └─ Corrupt   what it sent is not what its digest or its size says
     ├─ StartError    a step of starting failed; carries the exit code that shells use (125, 126, 127)
     └─ Unsupported   this kernel cannot do it; says what is missing

Messages are lower case, one sentence, and name the object.
"""

from collections.abc import Mapping


class RuntimeFault(Exception):
    pass


class NotFound(RuntimeFault):
    pass


class Conflict(RuntimeFault):
    pass


class Invalid(RuntimeFault):
    pass


class ReadOnly(RuntimeFault):
    pass


class PortInUse(Conflict):
    pass


class Exhausted(RuntimeFault):
    pass


class Unsupported(RuntimeFault):
    pass


class Unauthorized(RuntimeFault):
    pass


class Denied(RuntimeFault):
    pass


class Unavailable(RuntimeFault):
    """retry_after: seconds that the other side asks for, None if it doesn't say."""

    retry_after: float | None = None


class Corrupt(Unavailable):
    pass


class StartError(RuntimeFault):
    """exit_code: 127 program not found, 126 found but not executable, 125 anything else; answer: all that was said."""

    def __init__(self, message: str, exit_code: int = 125, answer: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.answer = answer or {}
