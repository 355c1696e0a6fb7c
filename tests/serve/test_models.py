"""Models in a worker's memory: loaded when asked, let go when room is short, and not tried again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar.core.errors import Damaged, Unavailable
from instar.serve.worker import models
from instar.serve.worker.metering import Meter
from instar.serve.worker.models import LEAST_BYTES, Models, named


def fill(tmp_path: Path, held: Models, count: int) -> list[str]:
    names = [f"b3:{number}" for number in range(count)]
    for name in names:
        held.get(name, str(tmp_path))
    return names


def test_the_one_used_longest_ago_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instar.serve.processes.measuring.resident_bytes_here", lambda: 0)
    changes: list[tuple[str, bool]] = []
    held = Models(
        lambda folder: object(), 3 * LEAST_BYTES, changed=lambda bundle, there: changes.append((bundle, there))
    )
    names = fill(tmp_path, held, 3)
    held.get(names[0], str(tmp_path))
    held.get("b3:new", str(tmp_path))
    assert list(held) == [names[2], names[0], "b3:new"]
    assert (names[1], False) in changes
    assert held.bytes == 3 * LEAST_BYTES
    held.get(names[2], str(tmp_path), keep=True)
    fill(tmp_path, held, 10)
    assert names[2] in held


def test_what_is_kept_no_more_makes_room_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instar.serve.processes.measuring.resident_bytes_here", lambda: 0)
    held = Models(lambda folder: object(), 2 * LEAST_BYTES)
    for name in ("b3:a", "b3:b", "b3:c"):
        held.get(name, str(tmp_path), keep=True)
    assert list(held) == ["b3:a", "b3:b", "b3:c"]
    held.release("b3:b")
    assert list(held) == ["b3:a", "b3:c"]
    held.release("b3:a")  # there is room for it
    held.release("b3:not there")
    assert list(held) == ["b3:a", "b3:c"]
    held.get("b3:d", str(tmp_path))
    assert list(held) == ["b3:c", "b3:d"]


def test_one_model_may_be_larger_than_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instar.serve.processes.measuring.resident_bytes_here", lambda: 0)
    held = Models(lambda folder: object(), 1)
    assert [len(held) for _ in fill(tmp_path, held, 3)] == [1, 1, 1]


def test_what_does_not_load_is_not_tried_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    now = [0.0]
    monkeypatch.setattr(models.time, "monotonic", lambda: now[0])

    def load(folder: Path) -> object:
        tries.append(folder)
        raise ModuleNotFoundError("No module named 'lightgbm.basic'", name="lightgbm.basic")

    held = Models(load)
    for _ in range(3):
        with pytest.raises(Unavailable, match="package lightgbm is not installed"):
            held.get("b3:1", str(tmp_path))
    assert len(tries) == 1
    now[0] = 2.0
    with pytest.raises(Unavailable):
        held.get("b3:1", str(tmp_path))
    now[0] = 4.0  # the pause has grown
    with pytest.raises(Unavailable):
        held.get("b3:1", str(tmp_path))
    assert len(tries) == 2


def test_a_missing_package_is_named_however_deep_it_was_missed() -> None:
    try:
        try:
            raise ModuleNotFoundError("No module named 'xgboost'", name="xgboost")
        except ModuleNotFoundError as inner:
            raise Damaged("its native form cannot be loaded") from inner
    except Damaged as outer:
        found = named(outer)
    assert "package xgboost is not installed in the environment of this version" in str(found)
    plain = ValueError("no")
    assert named(plain) is plain


def test_what_was_used_is_told_once(tmp_path: Path) -> None:
    held = Models(lambda folder: object())
    meter = Meter(held)
    key = ("delay", 1, "b3:1")
    meter.mark(key)
    held.get("b3:1", str(tmp_path))
    sum(range(100_000))
    meter.stop()
    meter.count(key, 2, 5)
    (used,) = meter.take()
    assert (used.endpoint, used.version, used.calls, used.rows, used.loads) == ("delay", 1, 2, 5, 1)
    assert 0 < used.cpu_ns <= used.busy_ns + 50_000_000
    assert used.byte_seconds > 0
    (later,) = meter.take()  # it still holds its memory
    assert (later.calls, later.rows, later.cpu_ns, later.loads) == (0, 0, 0, 0)
