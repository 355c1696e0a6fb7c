"""A wall clock that is set back while a gateway runs: its calls are found, sealed and proven as all others."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from instar.core.ids import call_id
from instar.core.store import Store
from instar.serve.log import catalogue, merging, record, sealing, searching, verification
from instar.serve.log.calls import CallLog
from instar.serve.traffic import routing
from tests.serve.writing import BEGIN, Segment, microseconds

DAY_MS = 86_400_000


class Jumping(Segment):
    """A segment whose calls come by a clock that somebody moves."""

    def __init__(self, folder: Path, number: int, clock_ms: list[int]) -> None:
        super().__init__(folder, number=number)
        self.clock_ms = list(clock_ms)
        self.ids: list[str] = []

    def put(self, metadata: bytes, salt: bytes | None = None, personal: bytes | None = None) -> None:
        import msgspec

        if record.kind(metadata) == record.CALL:
            entry = record.decode_entry(metadata)
            now = self.clock_ms.pop(0)
            made = call_id(now, self.name.boot, self.name.number * 100 + len(self.ids) + 1)
            self.ids.append(made)
            metadata = record.encode_entry(msgspec.structs.replace(entry, call=made, recorded=now * 1000))
        super().put(metadata, salt, personal)


@pytest.mark.parametrize("back_ms", [5, 3_600_000, DAY_MS, 40 * DAY_MS])
def test_calls_by_a_clock_that_went_back_are_found_and_proven(store: Store, back_ms: int) -> None:
    routing.set_policy(store, "flights", "delay", champion=3, bundles={3: "b3:" + "0" * 64}, cause="test")
    noon = microseconds(BEGIN) // 1000 + DAY_MS // 2
    made: list[str] = []
    for number in range(2):
        forth = [noon + number * 10 + n for n in range(3)]
        segment = Jumping(store.folder, number, [*forth, *(one - back_ms for one in forth), noon + 100 + number])
        segment.schema()
        for n in range(7):
            segment.call(BEGIN + timedelta(hours=n))
        segment.end()
        made += segment.ids
    log = CallLog(store)
    assert {log.find(one)["call"] for one in made} == set(made)
    sealing.seal(store, grace_seconds=-1.0)
    sealing.seal(store, grace_seconds=-1.0)  # and now the files are gone
    assert not list((store.folder / "calls").rglob("*.seg"))
    assert verification.verify(store) == []
    log = CallLog(store)
    assert {(log.find(one) or {}).get("call") for one in made} == set(made)
    assert sorted(log.read("delay")["call"]) == sorted(made)
    page = searching.search(store, log, "flights", searching.Query(limit=50))
    assert sorted(row["call"] for row in page.rows) == sorted(made)
    for unit in catalogue.units(store):
        assert unit.first_call <= unit.last_call
    merging.merge(store, many=2)
    assert verification.verify(store) == []
    assert {(log.find(one) or {}).get("call") for one in made} == set(made)
