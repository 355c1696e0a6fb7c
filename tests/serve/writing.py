"""Writes segments as a gateway does, byte for byte, without a gateway."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from instar.core import frames
from instar.core.ids import call_id
from instar.serve.log import record, segments
from instar.serve.log.record import Answer, Call, End, Head, Later, Personal, Schema, Tensor, Work
from instar.serve.log.segments import SegmentName

BEGIN = datetime(2013, 3, 1, tzinfo=UTC)
COLUMNS = (("distance", "FP64", False), ("carrier", "BYTES", False))


def microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class Segment:
    """A segment under construction."""

    def __init__(self, store_folder: Path, endpoint: str = "delay", boot: int = 77, number: int = 0) -> None:
        self.name = SegmentName(endpoint, boot, number)
        self.path = self.name.path(store_folder / "calls")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(segments.MAGIC)
        self._sequence = 0
        self._calls = number * 1000
        self.put(record.encode_entry(Head(1, endpoint, boot, number, 0)))

    def put(self, metadata: bytes, salt: bytes | None = None, personal: bytes | None = None) -> None:
        frame = record.encode_frame(self._sequence, metadata, salt, personal)
        self._sequence += 1
        with self.path.open("ab") as file:
            file.write(frames.pack(frame))

    def schema(self, columns: tuple[tuple[str, str, bool], ...] = COLUMNS, number: int = 0) -> None:
        self.put(record.encode_entry(Schema(number, columns)))

    def call(
        self,
        at: datetime = BEGIN,
        inputs: Sequence[Sequence[Any] | None] = ([1400.0], ["UA"]),
        *,
        rows: int = 1,
        signature: int = 0,
        laters: int = 0,
        personal: Personal | None = None,
        entities: list[str] | None = None,
        extra: Sequence[Answer] = (),
    ) -> str:
        """An answered call; returns its id."""
        champion = Answer(3, "champion", [0.5] * rows, [1] * rows, 0.3)
        work = Work(
            "mine",
            entities,
            "tver_1",
            signature,
            rows,
            [None if values is None else list(values) for values in inputs],
            3,
            [champion, *extra],
            10,
            20,
        )
        sealed = (b"salt" * 4, record.encode_entry(personal)) if personal is not None else (None, None)
        return self._call(
            at,
            Call(
                "",
                0,
                0,
                "ada",
                7,
                "champion",
                3,
                None if personal is not None else "key",
                200,
                420,
                300,
                None,
                work,
                laters,
            ),
            *sealed,
        )

    def tensor_call(
        self,
        tensors: list[Tensor],
        outputs: list[Tensor],
        *,
        at: datetime = BEGIN,
        rows: int = 1,
        scores: list[float] | None = None,
        extra: Sequence[Answer] = (),
        personal: Personal | None = None,
        entities: list[str] | None = None,
        laters: int = 0,
    ) -> str:
        """An answered call of a tensor model, by the schema of number 0; returns its id."""
        champion = Answer(3, "champion", scores or [], [], None, None, outputs)
        work = Work(None, entities, None, 0, rows, [], 3, [champion, *extra], 10, 20, None, tensors)
        sealed = (b"salt" * 4, record.encode_entry(personal)) if personal is not None else (None, None)
        return self._call(at, Call("", 0, 0, "ada", 7, "champion", 3, None, 200, 420, 300, None, work, laters), *sealed)

    def failed(
        self, at: datetime = BEGIN, status: int = 503, version: int | None = 3, personal: bytes | None = None
    ) -> str:
        """A failed call; returns its id."""
        call = Call("", 0, 0, "ada", 7, "canary", version, None, status, 9, 8, "Unavailable: gone", None)
        return self._call(at, call, b"salt" * 4 if personal else None, personal)

    def later(self, call: str, *answers: Answer) -> None:
        self.put(record.encode_entry(Later(call, 0, list(answers))))

    def end(self) -> None:
        self.put(record.encode_entry(End(0)))

    def _call(self, at: datetime, call: Call, salt: bytes | None = None, personal: bytes | None = None) -> str:
        import msgspec

        self._calls += 1
        made = call_id(1_700_000_000_000 + self._calls, self.name.boot, self._calls)
        recorded = (1_700_000_000_000 + self._calls) * 1000
        self.put(
            record.encode_entry(msgspec.structs.replace(call, call=made, at=microseconds(at), recorded=recorded)),
            salt,
            personal,
        )
        return made
