"""Errors as MLflow's clients read them: a code, a sentence, and the HTTP status that belongs to the code, at every refusal."""

from __future__ import annotations

import re

from instar.core import errors
from instar.core.errors import InstarError
from instar.interfaces.api.routes import Reply
from instar.interfaces.mlflow.unsupported import why

# The rim names a route that is not there so: `GET /api/2.0/mlflow/traces`.
_ADDRESS = re.compile(r"[A-Z]+ (/.*)\Z", re.DOTALL)

# The statuses of MLflow's own server. A client tries again on 408, 429 and from 500 on, and on no other.
STATUS = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
    "RESOURCE_LIMIT_EXCEEDED": 507,  # a full disk is not emptied by trying again
}

# The first class that fits decides, so the special comes before the general.
CODES: tuple[tuple[type[InstarError], str], ...] = (
    (errors.MalformedRequest, "BAD_REQUEST"),
    (errors.BadInput, "INVALID_PARAMETER_VALUE"),
    (errors.NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (errors.Unauthenticated, "UNAUTHENTICATED"),
    (errors.NotAllowed, "PERMISSION_DENIED"),
    (errors.TooManyCalls, "REQUEST_LIMIT_EXCEEDED"),
    (errors.Conflict, "INVALID_PARAMETER_VALUE"),
    (errors.UnsafeModel, "INVALID_PARAMETER_VALUE"),
    (errors.CheckFailed, "INVALID_PARAMETER_VALUE"),
    (errors.Blocked, "BAD_REQUEST"),
    (errors.GateFailed, "BAD_REQUEST"),
    (errors.Unavailable, "TEMPORARILY_UNAVAILABLE"),
    (errors.StoreBusy, "TEMPORARILY_UNAVAILABLE"),
    (errors.StoreFull, "RESOURCE_LIMIT_EXCEEDED"),
)


class Refusal(InstarError):
    """A refusal in MLflow's own words, where its clients or their users look for them.

    Args:
        code: One of `STATUS`.
        message: The whole sentence, as the client shows it.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)

    def describe(self) -> str:
        """The sentence alone: MLflow's messages have no facts beside them."""
        return self.what

    def __reduce__(self) -> tuple[object, ...]:
        return (Refusal, (self.code, self.what))


def invalid(message: str) -> Refusal:
    """A value that cannot be used."""
    return Refusal("INVALID_PARAMETER_VALUE", message)


def missing(name: str) -> Refusal:
    """A required field that is absent or empty."""
    return invalid(
        f"Missing value for required parameter '{name}'. "
        "See the API docs for more information about request parameters."
    )


def code_of(error: InstarError) -> str:
    """MLflow's code of an error; INTERNAL_ERROR when it is our fault."""
    if isinstance(error, Refusal):
        return error.code
    return next((code for kind, code in CODES if isinstance(error, kind)), "INTERNAL_ERROR")


def refuse(error: InstarError) -> Reply:
    """The reply that says an error in MLflow's form."""
    address = _ADDRESS.match(error.subject) if isinstance(error, errors.NotFound) else None
    if address is not None:
        error = Refusal("ENDPOINT_NOT_FOUND", why(address[1]))
    code = code_of(error)
    return Reply({"error_code": code, "message": error.describe()}, STATUS[code])
