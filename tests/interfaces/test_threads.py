"""Handlers run in threads: at most so many, in order, each error to its own caller."""

from __future__ import annotations

import asyncio
import threading

import pytest

from instar.interfaces.api.threads import Threads


def test_results_and_errors_come_back_to_who_asked() -> None:
    async def ask() -> list[object]:
        threads = Threads(3)
        asked = [threads.run(lambda n=n: 10 // n) for n in (1, 0, 5)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        threads.close()
        return found

    one, zero, five = asyncio.run(ask())
    assert (one, five) == (10, 2)
    assert isinstance(zero, ZeroDivisionError)


def test_there_are_at_most_so_many_and_only_as_many_as_needed() -> None:
    running, most = 0, 0
    mutex, let_go = threading.Lock(), threading.Event()

    def work() -> str:
        nonlocal running, most
        with mutex:
            running += 1
            most = max(most, running)
        let_go.wait(20)
        with mutex:
            running -= 1
        return threading.current_thread().name

    async def ask() -> set[str]:
        threads = Threads(4)
        let_go.set()
        alone = {await threads.run(work) for _ in range(20)}
        assert len(alone) == 1
        let_go.clear()
        asked = [asyncio.ensure_future(threads.run(work)) for _ in range(20)]
        while running < 4:
            await asyncio.sleep(0)
        let_go.set()
        names = set(await asyncio.gather(*asked))
        threads.close()
        return names

    assert len(asyncio.run(ask())) <= 4
    assert most == 4


def test_a_caller_that_leaves_takes_nothing_with_it() -> None:
    let_go = threading.Event()

    async def ask() -> str:
        threads = Threads(1)
        leaving = asyncio.ensure_future(threads.run(let_go.wait, 20))
        staying = asyncio.ensure_future(threads.run(lambda: "answer"))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        let_go.set()
        found = await staying
        threads.close()
        return found

    assert asyncio.run(ask()) == "answer"
