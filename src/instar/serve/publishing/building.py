"""Building environments beside answering: routes are published at once, and a version's again when its environment is ready.

build(store, tell=print)                 # a command, which waits; others are held up by nothing
Builder(store).run(stop)                 # a server, for as long as it runs
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from instar.core.errors import InstarError, Unavailable
from instar.core.store import Store
from instar.serve.publishing import snapshot, waiting
from instar.serve.publishing.waiting import Waiting

MOST = 4  # at a time
LOOK_SECONDS = 0.5

log = logging.getLogger("instar.serve")


def build(store: Store, *, tell: Callable[[str], None] = lambda text: None) -> None:
    """Build what routes wait for, one after another, and put each to use; `waiting` says which could not be."""
    for one in waiting.read(store.folder):
        if not one.failed:
            _build(store, one, tell=_of(one, tell))


def take_effect(store: Store, tell: Callable[[str], None]) -> snapshot.Effect:
    """Publish, build what that waits for, and wait for the gateways' word: what a command does before it says "done".

    Raises:
        Unavailable: An environment cannot be built, a gateway refused the routes, or did not answer in time; the policy is
            on the record all the same, and the routes before it still answer.
    """
    before = set(waiting.read(store.folder))
    snapshot.publish(store)
    build(store, tell=tell)
    for one in waiting.read(store.folder):
        if one.failed and one not in before:
            raise Unavailable(
                "its environment cannot be built, so it does not answer", subject=one.name, found=one.failed,
                next_step=f"Mend that and say `instar models build {one.name}`, or set another policy.",
            )  # fmt: skip
    return snapshot.take_effect(store)


class Builder:
    """Builds what routes wait for, a thread each: one that takes long holds up no other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._busy: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop; a build that is not done then ends with the process, and is begun again by the next."""
        while not stop.wait(LOOK_SECONDS):
            for one in waiting.read(self._store.folder):
                if not one.failed and one.environment not in self._busy and len(self._busy) < MOST:
                    self._busy.add(one.environment)
                    threading.Thread(target=self._work, args=(one,), name=f"build {one.name}", daemon=True).start()

    def _work(self, one: Waiting) -> None:
        try:
            _build(self._store, one, tell=_of(one, log.warning))
        except Exception:  # the store is away: it is tried again, and the others go on
            log.exception("%s: its environment could not be put to use", one.name)
        finally:
            self._busy.discard(one.environment)


def _build(store: Store, one: Waiting, tell: Callable[[str], None]) -> None:
    """Build one, and publish what came of it."""
    from instar.train import environment_places, own_environment
    from instar.train.bundle import load_manifest

    try:
        own_environment.prepare(store, load_manifest(store.blobs, one.bundle), tell=tell)
    except Exception as problem:  # kept, so that it is not tried for ever, and told to all by publishing
        why = str(problem) if isinstance(problem, InstarError) else f"{type(problem).__name__}: {problem}"
        environment_places.note(store.folder, one.environment, why)
        tell(f"its environment cannot be built: {why}")
    snapshot.publish(store)


def _of(one: Waiting, tell: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: tell(f"{one.name}: {text}")
