"""Errors, named by the reaction they call for.

    SwarmdError
     ├─ NotFound           the named object is not there: check the name            gRPC NOT_FOUND            HTTP 404
     ├─ AlreadyExists      the name or port is taken: choose another                ALREADY_EXISTS            409
     ├─ Conflict           somebody changed it first: read again, decide again      ABORTED                   409
     ├─ Invalid            the request can never work as it is: correct it          INVALID_ARGUMENT          400
     ├─ FailedPrecondition not in this state (e.g. "not a manager"): change it      FAILED_PRECONDITION       503
     ├─ Unavailable        try again later: no quorum, no leader, peer away         UNAVAILABLE               503
     ├─ Denied             this caller may not                                      PERMISSION_DENIED         403
     ├─ Exhausted          a pool, disk or quota is full: free or enlarge it        RESOURCE_EXHAUSTED        507
     └─ Internal           a defect of ours                                         INTERNAL                  500

Messages are lower case, one sentence, and name the object.
"""

from typing import ClassVar


class SwarmdError(Exception):
    grpc_code: ClassVar[str] = "INTERNAL"  # a name of grpc.StatusCode; kept as text so that the CLI never imports grpc
    http_status: ClassVar[int] = 500


class NotFound(SwarmdError):
    grpc_code, http_status = "NOT_FOUND", 404


class AlreadyExists(SwarmdError):
    grpc_code, http_status = "ALREADY_EXISTS", 409


class Conflict(SwarmdError):
    grpc_code, http_status = "ABORTED", 409


class Invalid(SwarmdError):
    grpc_code, http_status = "INVALID_ARGUMENT", 400


class FailedPrecondition(SwarmdError):
    grpc_code, http_status = "FAILED_PRECONDITION", 503


class Unavailable(SwarmdError):
    grpc_code, http_status = "UNAVAILABLE", 503


class Denied(SwarmdError):
    grpc_code, http_status = "PERMISSION_DENIED", 403


class Exhausted(SwarmdError):
    grpc_code, http_status = "RESOURCE_EXHAUSTED", 507


class Internal(SwarmdError):
    pass


BY_GRPC_CODE: dict[str, type[SwarmdError]] = {error.grpc_code: error for error in SwarmdError.__subclasses__()}
