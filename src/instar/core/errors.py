"""The error tree of Instar: every failure that a user can meet, at any moment of the life cycle.

    InstarError
    ├── BadInput              what was given cannot be used as it is
    │   ├── ContractError     instar.toml
    │   ├── PipelineError     the project's steps
    │   │   ├── CycleError
    │   │   └── UnknownTable
    │   ├── SourceError       arriving data
    │   │   ├── MissingColumn
    │   │   ├── WrongType
    │   │   └── EmptySource
    │   └── RequestError      a call or an outcome
    │       ├── MalformedRequest
    │       ├── MissingInput
    │       ├── WrongShape
    │       ├── WrongDatatype
    │       ├── OutOfRange
    │       ├── TooLarge
    │       ├── UnsupportedMedia
    │       └── NotAcceptable
    ├── NotFound              nothing has that name
    ├── Conflict              it contradicts what is on the record
    ├── Unauthenticated       nobody proved who calls
    ├── NotAllowed            this actor may not
    ├── TooManyCalls          this caller called more often than it may
    ├── UnsafeModel           loading it could run code that nobody allowed
    ├── Blocked               it needs somebody or something else first
    ├── CheckFailed           data broke an expectation of severity `error`
    ├── StepFailed            a user's function raised
    ├── GateFailed            the evidence is not good enough
    ├── Unavailable           try again later
    │   └── NotLoaded         a model cannot be loaded
    ├── DeadlineExceeded      the time that the caller allowed is over
    └── StoreError            the store itself
        ├── StoreBusy         another process holds it for too long
        ├── StoreFull         no room is left on its disk
        ├── StoreTooNew       written by a later format
        └── Damaged           a digest, a chain or a file does not hold

The core knows nothing of HTTP or exit codes: the rim translates (`interfaces`).
"""

from __future__ import annotations


class InstarError(Exception):
    """Something went wrong that the user can act on.

    Args:
        what: What happened, one clause without a full stop.
        subject: The object it happened to, e.g. `"table flights@3"`.
        found: The value found, if there is one.
        asked: The value asked for, if there is one.
        next_step: What to do now, one sentence.
    """

    def __init__(
        self, what: str, *, subject: str = "", found: object = None, asked: object = None, next_step: str = ""
    ) -> None:
        self.what = what
        self.subject = subject
        self.found = found
        self.asked = asked
        self.next_step = next_step
        super().__init__(self.describe())

    def describe(self) -> str:
        """The whole message: subject, what happened, found and asked, next step."""
        text = f"{self.subject}: {self.what}" if self.subject else self.what
        facts = [
            f"{label} {value}"
            for label, value in (("found", self.found), ("asked for", self.asked))
            if value is not None
        ]
        if facts:
            text += "; " + ", ".join(facts)
        text += "."
        if self.next_step:
            text += f"\nNext: {self.next_step}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (workers, pools): rebuild from the facts, not from the text.
        facts = {"subject": self.subject, "found": self.found, "asked": self.asked, "next_step": self.next_step}
        return (_rebuild, (type(self), self.what, facts))


def _rebuild(kind: type[InstarError], what: str, facts: dict[str, object]) -> InstarError:
    return kind(what, **facts)  # type: ignore[arg-type]


class BadInput(InstarError):
    """What was given cannot be used as it is."""


class ContractError(BadInput):
    """`instar.toml` is wrong."""


class PipelineError(BadInput):
    """The project's steps do not fit together."""


class CycleError(PipelineError):
    """Steps wait for each other in a ring."""


class UnknownTable(PipelineError):
    """A step's parameter names no table."""


class SourceError(BadInput):
    """Arriving data cannot be landed."""


class MissingColumn(SourceError):
    """A column that the source promises is not there."""


class WrongType(SourceError):
    """A column cannot be read as its type."""


class EmptySource(SourceError):
    """There is nothing to land."""


class RequestError(BadInput):
    """A call or an outcome is wrong."""


class MalformedRequest(RequestError):
    """The body is not of the protocol's form."""


class MissingInput(RequestError):
    """An input that the signature asks for is not there."""


class WrongShape(RequestError):
    """A tensor's shape and data do not agree."""


class WrongDatatype(RequestError):
    """A tensor's datatype or a value is not what the signature asks for."""


class OutOfRange(RequestError):
    """A value is beyond what was declared for its input."""


class TooLarge(RequestError):
    """The body is over the limit."""


class UnsupportedMedia(RequestError):
    """The body is of a kind that is not read."""


class NotAcceptable(RequestError):
    """The caller takes no form in which it can be answered."""


class NotFound(InstarError):
    """Nothing has that name or id."""


class Conflict(InstarError):
    """It contradicts what is already on the record."""


class Unauthenticated(InstarError):
    """Nobody proved who calls."""


class NotAllowed(InstarError):
    """This actor may not do that."""


class TooManyCalls(InstarError):
    """This caller called more often than it may.

    Attributes:
        retry_after: Seconds after which it may call again.
    """

    retry_after = 1


class UnsafeModel(InstarError):
    """Loading it could run code that nobody allowed."""


class Blocked(InstarError):
    """It needs somebody or something else first."""


class CheckFailed(InstarError):
    """Data broke an expectation of severity `error`."""


class StepFailed(InstarError):
    """A user's function raised."""


class GateFailed(InstarError):
    """The evidence is not good enough."""


class Unavailable(InstarError):
    """It cannot answer now; a later try may.

    Attributes:
        retry_after: Seconds after which to try again.
    """

    retry_after = 1


class NotLoaded(Unavailable):
    """The model of a version cannot be loaded: no request is at fault, and to wait is of no use until somebody has looked."""


class DeadlineExceeded(InstarError):
    """The time that the caller allowed is over."""


class StoreError(InstarError):
    """The store itself is in trouble."""


class StoreBusy(StoreError):
    """Another process holds the store for longer than we wait."""


class StoreFull(StoreError):
    """No room is left on the store's disk."""


class StoreTooNew(StoreError):
    """The store was written by a later format than this program knows."""


class Damaged(StoreError):
    """A digest, a chain or a file does not hold."""
