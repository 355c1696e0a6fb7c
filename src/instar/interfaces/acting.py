"""The server's store and project as one caller uses them: what a request writes says who did it, from the door to the record."""

from __future__ import annotations

import copy
from dataclasses import replace

from instar.app import App
from instar.core.identity import Actor


def acting(app: App, actor: Actor) -> App:
    """The same opened app, whose store writes as `actor`; what was read of the project is shared."""
    if app.store.actor == actor:
        return app
    other = copy.copy(app)  # with what is cached of the contract
    other.store = replace(app.store, actor=actor)
    return other
