"""Closed segments of one gateway, for tests to seal: many calls, a failure, shadows, a person, two signatures."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from instar.core.store import Store
from instar.serve.log import catalogue
from instar.serve.log.record import Answer, Personal
from instar.serve.traffic import routing
from tests.serve.writing import BEGIN, Segment

HOUR = timedelta(hours=1)
BUNDLE = "b3:" + "0" * 64


def fill(store: Store, segments: int = 2, boot: int = 77) -> list[Segment]:
    """Write them; the endpoint is routed."""
    if routing.current(store, "delay") is None:
        routing.set_policy(store, "flights", "delay", champion=3, bundles={3: BUNDLE}, cause="test")
    made = []
    for number in range(segments):
        segment = Segment(store.folder, boot=boot, number=number)
        segment.schema()
        for n in range(5):
            call = segment.call(BEGIN + (2 * n + number) * HOUR, laters=1)
            segment.later(call, Answer(1, "rule", [0.1], [0], 0.3))
        segment.call(BEGIN + 20 * HOUR, ([1.0, 2.0], None), rows=2, personal=Personal({}, ["E1", "E2"], "key"))
        segment.failed(BEGIN + 21 * HOUR)
        if number:
            segment.schema((("distance", "FP64", False), ("wind", "FP64", False)), 1)
            segment.call(BEGIN + 22 * HOUR, ([1.0], [2.0]), signature=1)
        segment.end()
        made.append(segment)
    return made


def files(store: Store) -> list[Path]:
    """All files of sealed calls that stand."""
    return sorted(
        catalogue.tables_folder(store.folder, one.project) / path
        for one in catalogue.units(store)
        for path in one.files
    )
