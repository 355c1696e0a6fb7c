"""Events reach their receivers once they happened, signed, and again until they are taken; nothing is lost in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sqlalchemy as sa

from instar.core.clock import EventClock
from instar.core.errors import NotAllowed
from instar.core.store import Store
from instar.release import delivery, registered_models, registry, targets, webhooks
from instar.release.webhooks import delivery_table
from tests.evaluate.bundles import make_bundle


class Receiver:
    """What arrived, and how it is answered."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv(targets.SETTING, "any")
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


def rows(store: Store) -> list[tuple[str, str, int]]:
    with store.database.read() as tx:
        found = tx.execute(sa.select(delivery_table).order_by(delivery_table.c.id))
        return [(row.event, row.state, row.attempts) for row in found]


def test_every_event_is_signed_and_sent(store: Store, receiver: Receiver) -> None:
    webhooks.create(store, "flights", "all", receiver.url, list(webhooks.EVENTS), secret="key")
    version = registry.register(store, "flights", "delay", bundle=make_bundle(store), origin="recipe")
    registry.set_tag(store, version, "checked", "yes")
    registry.set_tag(store, version, "checked", None)
    registry.set_tag(store, version, "checked", None)  # nothing was there: nothing to tell
    registry.set_alias(store, "flights", "delay", "stable", 1)
    registry.set_alias(store, "flights", "delay", "stable", None)
    registered_models.create(store, "elsewhere", "delay")  # another project's
    assert delivery.deliver_due(store) == 6
    told = [json.loads(body) for _, body in receiver.seen]
    assert [f"{one['entity']}.{one['action']}" for one in told] == [
        "registered_model.created", "model_version.created", "model_version_tag.set", "model_version_tag.deleted",
        "model_version_alias.created", "model_version_alias.deleted",
    ]  # fmt: skip
    assert told[1]["data"] | {"source": "", "run_id": ""} == {
        "name": "delay", "version": "1", "source": "", "run_id": "", "tags": {}, "description": None,
    }  # fmt: skip
    for headers, body in receiver.seen:
        id, stamp = headers["x-mlflow-delivery-id"], headers["x-mlflow-timestamp"]
        assert headers["x-mlflow-signature"] == delivery.signature("key", id, stamp, body.decode())
    assert delivery.deliver_due(store) == 0


def test_the_signature_is_the_documented_one() -> None:
    # What MLflow 3.17.2 makes of the same four values.
    assert delivery.signature("secret", "id", "1700000000", "{}") == "v1,GBemBzTgbKoVEGKycqyY3615LbdJbhFLE1oQk+zZ+lo="


def test_what_is_not_taken_is_sent_again_with_the_same_id_and_body(store: Store, receiver: Receiver) -> None:
    clock = store.clock
    assert isinstance(clock, EventClock)
    moment = [clock.wall()]
    object.__setattr__(clock, "wall", lambda: moment[0])
    webhooks.create(store, "flights", "ci", receiver.url, ["registered_model.created"])
    receiver.answers = [503, 429, 500, 200]
    registered_models.create(store, "flights", "delay")
    assert delivery.deliver_due(store) == 1
    assert delivery.deliver_due(store) == 0  # not before its time
    for seconds in delivery.BACKOFF_SECONDS[:4]:
        moment[0] += timedelta(seconds=seconds + 1)
        delivery.deliver_due(store)
    assert len(receiver.seen) == 4
    assert len({(headers["x-mlflow-delivery-id"], body) for headers, body in receiver.seen}) == 1
    assert "x-mlflow-signature" not in receiver.seen[0][0]
    assert rows(store) == [("registered_model.created", "delivered", 4)]


def test_what_is_refused_for_good_is_not_sent_again_and_no_redirect_is_followed(
    store: Store, receiver: Receiver
) -> None:
    webhooks.create(store, "flights", "ci", receiver.url, ["registered_model.created"])
    for name, answer in (("a", 410), ("b", 302)):
        receiver.answers = [answer]
        registered_models.create(store, "flights", name)
        delivery.deliver_due(store)
    assert len(receiver.seen) == 2
    assert [state for _, state, _ in rows(store)] == ["failed", "failed"]


def test_a_change_that_fails_tells_nobody(store: Store, receiver: Receiver) -> None:
    webhooks.create(store, "flights", "ci", receiver.url, ["registered_model.created"])

    def work(tx: Any) -> None:
        registered_models.ensure(tx, store, "flights", "delay")
        raise RuntimeError("the process dies")

    with pytest.raises(RuntimeError):
        store.database.write(work)
    assert rows(store) == []


def test_a_claimed_delivery_is_left_to_who_claimed_it_and_taken_up_when_he_died(
    store: Store, receiver: Receiver
) -> None:
    moment = [store.clock.wall()]
    object.__setattr__(store.clock, "wall", lambda: moment[0])
    webhooks.create(store, "flights", "ci", receiver.url, ["registered_model.created"])
    registered_models.create(store, "flights", "delay")
    assert len(delivery._claim(store)) == 1  # and then its process is killed
    assert delivery.deliver_due(store) == 0
    moment[0] += timedelta(seconds=delivery.CLAIM_SECONDS)
    assert delivery.deliver_due(store) == 1
    assert len(receiver.seen) == 1


def test_switched_off_or_gone(store: Store, receiver: Receiver) -> None:
    hook = webhooks.create(store, "flights", "ci", receiver.url, ["registered_model.created"])
    registered_models.create(store, "flights", "a")
    webhooks.update(store, "flights", hook.id, {"status": webhooks.DISABLED})
    registered_models.create(store, "flights", "b")
    delivery.deliver_due(store)
    assert rows(store) == [("registered_model.created", "dropped", 1)]
    webhooks.delete(store, "flights", hook.id)
    assert rows(store) == []
    assert receiver.seen == []


def test_a_name_that_leads_inside_is_not_called(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = webhooks.create(store, "flights", "ci", "https://localhost/hook", ["registered_model.created"])
    monkeypatch.delenv(targets.SETTING)
    with pytest.raises(NotAllowed, match="private network"):
        targets.connect(targets.check(hook.url), 1.0)
    assert "private network" in delivery.send_example(store, hook).error


def test_a_secret_by_reference(store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = webhooks.create(store, "flights", "ci", receiver.url, ["registered_model.created"], secret="env:HOOK_SECRET")
    assert "HOOK_SECRET" in delivery.send_example(store, hook).error  # it is not set: nothing is sent unsigned
    assert receiver.seen == []
    monkeypatch.setenv("HOOK_SECRET", "key")
    assert delivery.send_example(store, hook).taken
    assert "x-mlflow-signature" in receiver.seen[0][0]
