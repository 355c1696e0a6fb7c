"""Webhooks over MLflow's protocol: asked for, changed, tried and given up; what is sent when lies with `release.webhooks`."""

from __future__ import annotations

from msgspec import field

from instar.core.errors import NotAllowed
from instar.core.identity import Permission
from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import page_size
from instar.interfaces.mlflow.messages import Choice, Int64
from instar.interfaces.mlflow.words import milliseconds
from instar.release import delivery, webhooks
from instar.release.webhooks import Webhook

ENTITIES = {
    1: "REGISTERED_MODEL", 2: "MODEL_VERSION", 3: "MODEL_VERSION_TAG", 4: "MODEL_VERSION_ALIAS",
}  # fmt: skip
ACTIONS = {1: "CREATED", 2: "UPDATED", 3: "DELETED", 4: "SET"}
STATUSES = {1: webhooks.ACTIVE, 2: webhooks.DISABLED}


class Event(Message):
    entity: Choice = None
    action: Choice = None


class Create(Message):
    name: str | None = None
    description: str | None = None
    url: str | None = None
    events: list[Event] | None = None
    secret: str | None = None
    status: Choice = None


class List(Message):
    max_results: Int64 | None = None
    page_token: str | None = None


class Test(Message):
    event: Event | None = None


class EventOut(Message):
    entity: str
    action: str


class WebhookOut(Message):
    """A webhook, without its secret."""

    webhook_id: str
    name: str
    url: str
    events: list[EventOut]
    status: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None


class OneWebhook(Message):
    webhook: WebhookOut


class Webhooks(Message):
    webhooks: list[WebhookOut] = field(default_factory=list)
    next_page_token: str | None = None


class Result(Message):
    success: bool
    response_status: int | None = None
    response_body: str | None = None
    error_message: str | None = None


class Tested(Message):
    result: Result


def create(call: Call, asked: Create) -> OneWebhook:
    """Ask to be told of events."""
    try:
        hook = webhooks.create(
            call.store,
            call.project,
            required(asked.name, "name"),
            required(asked.url, "url"),
            [_event(one) for one in asked.events or ()],
            description=asked.description or "",
            secret=asked.secret or None,
            status=_status(asked.status) or webhooks.ACTIVE,
        )
    except NotAllowed as error:
        raise _not_there(error) from error
    return OneWebhook(webhook=_document(hook))


def get(call: Call, asked: None) -> OneWebhook:
    """One webhook."""
    return OneWebhook(webhook=_document(webhooks.get(call.store, call.project, call.path["webhook_id"])))


def list_all(call: Call, asked: List) -> Webhooks:
    """The project's webhooks."""
    limit = page_size(asked.max_results, 100, 1000)
    found = webhooks.webhooks(call.store, call.project, limit=limit + 1, after=asked.page_token or "")
    token = found[limit - 1].id if len(found) > limit else None
    return Webhooks(webhooks=[_document(one) for one in found[:limit]], next_page_token=token)


def update(call: Call, asked: Create) -> OneWebhook:
    """Change what a webhook is told, where, or whether."""
    changes = {
        "name": asked.name,
        "description": asked.description,
        "url": asked.url,
        "events": [_event(one) for one in asked.events] if asked.events else None,
        "secret": asked.secret or None,
        "status": _status(asked.status),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return OneWebhook(webhook=_document(webhooks.update(call.store, call.project, call.path["webhook_id"], given)))
    except NotAllowed as error:
        raise _not_there(error) from error


def delete(call: Call, asked: None) -> dict[str, str]:
    """Give a webhook up, with its secret and what was still to be sent."""
    webhooks.delete(call.store, call.project, call.path["webhook_id"])
    return {}


def test(call: Call, asked: Test) -> Tested:
    """Send an example now, and say what came of it."""
    hook = webhooks.get(call.store, call.project, call.path["webhook_id"])
    answer = delivery.send_example(call.store, hook, _event(asked.event) if asked.event else None)
    return Tested(
        result=Result(
            success=answer.taken,
            response_status=answer.status,
            response_body=answer.body or None,
            error_message=answer.error or None,
        )
    )


def _event(event: Event) -> str:
    entity = ENTITIES.get(event.entity) if isinstance(event.entity, int) else event.entity
    action = ACTIONS.get(event.action) if isinstance(event.action, int) else event.action
    name = f"{required(entity, 'event.entity').lower()}.{required(action, 'event.action').lower()}"
    if name not in webhooks.EVENTS:
        raise invalid(f"Invalid webhook event: {name}. It is one of {', '.join(webhooks.EVENTS)}.")
    return name


def _status(status: Choice) -> str | None:
    return STATUSES.get(status) if isinstance(status, int) else status


def _not_there(error: NotAllowed) -> Refusal:
    return (
        invalid(f"Invalid webhook URL. {error.describe()}")
        if error.subject.startswith("webhook")
        else Refusal("PERMISSION_DENIED", error.describe())
    )


def _document(hook: Webhook) -> WebhookOut:
    events = [one.upper().partition(".") for one in hook.events]
    return WebhookOut(
        webhook_id=hook.id,
        name=hook.name,
        url=hook.url,
        events=[EventOut(entity=entity, action=action) for entity, _, action in events],
        status=hook.status,
        creation_timestamp=milliseconds(hook.created_at),
        last_updated_timestamp=milliseconds(hook.updated_at),
        description=hook.description or None,
    )


_HOOK = "webhooks/{webhook_id}"
operations = [
    Operation("POST", "webhooks", Permission.ADMIN, create, Create),
    Operation("GET", "webhooks", Permission.ADMIN, list_all, List),
    Operation("GET", _HOOK, Permission.ADMIN, get),
    Operation("PATCH", _HOOK, Permission.ADMIN, update, Create),
    Operation("DELETE", _HOOK, Permission.ADMIN, delete),
    Operation("POST", _HOOK + "/test", Permission.ADMIN, test, Test),
]
