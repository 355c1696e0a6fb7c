"""The line of writers: one at a time, first come, first served, and no thread twice."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from instar.adapters.database_sqlite import SqliteDatabase
from instar.adapters.write_line import WriteLine, line_of
from instar.core.errors import StoreBusy, StoreError


def test_many_threads_write_one_at_a_time_again_and_again() -> None:
    line, inside, seen = WriteLine(), [0], []

    def write() -> None:
        for _ in range(500):
            with line.turn(60):
                inside[0] += 1
                seen.append(inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 4000


def test_turns_come_in_the_order_of_asking() -> None:
    line, order = WriteLine(), []

    def write(number: int) -> None:
        with line.turn(60):
            order.append(number)

    with line.turn(60):
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=write, args=(number,)))
            threads[-1].start()
            while len(line._waiting) <= number:  # it stands in line before the next one comes
                pass
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_who_waits_in_vain_says_so_and_leaves_the_line() -> None:
    line, caught = WriteLine(), []

    def write() -> None:
        try:
            with line.turn(0.01):
                pass
        except StoreBusy as error:
            caught.append(error)

    with line.turn(60):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        with pytest.raises(StoreError, match="within a write"), line.turn(1):
            pass
    assert len(caught) == 1
    with line.turn(0):
        pass


def test_a_failed_write_passes_the_turn_on_and_one_file_has_one_line(tmp_path: Path) -> None:
    first, second = (SqliteDatabase(tmp_path / "x.db") for _ in range(2))
    with pytest.raises(ZeroDivisionError):
        first.write(lambda tx: 1 / 0)
    second.write(lambda tx: tx.exec_driver_sql("CREATE TABLE t (x)"))
    assert line_of(tmp_path / "x.db") is line_of(tmp_path / "." / "x.db")
    first.close()
    second.close()
