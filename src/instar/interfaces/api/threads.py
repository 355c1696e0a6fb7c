"""The threads in which handlers run, and files are read and written, while a server is up.

A call is handed to one thread that rests, the one that worked last, and wakes no other: its memory is warm, and so is its
connection to the database. Every small call pays for this; it is measured in docs/decisions/16-control-process.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Threads:
    """At most so many threads, begun as they are needed; more calls wait for their turn, in order.

    Args:
        most: Calls that run at once.
    """

    def __init__(self, most: int, name: str = "api") -> None:
        self._most, self._name = most, name
        self._mutex = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._resting: list[_Thread] = []
        self._threads: list[_Thread] = []
        self._closed = False

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` returns or raises, called in a thread. Who stops waiting does not stop it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._hand_over((loop, future, function, arguments))
        return await future

    def _hand_over(self, job: Job) -> None:
        with self._mutex:
            if self._resting:
                thread = self._resting.pop()
            elif len(self._threads) < self._most:
                thread = _Thread(self._next, f"{self._name}-{len(self._threads)}")
                self._threads.append(thread)
                thread.start()
            else:
                self._waiting.append(job)
                return
        thread.give(job)

    def close(self) -> None:
        """Let the threads end when what was handed over is done, and wait for them."""
        with self._mutex:
            self._closed = True
            resting, self._resting = self._resting, []
        for thread in resting:
            thread.give(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _next(self, thread: _Thread) -> bool:
        """Give a thread that is done its next call, or let it rest; False when it shall end."""
        with self._mutex:
            if self._waiting:
                thread.give(self._waiting.popleft())
            elif self._closed:
                return False
            else:
                self._resting.append(thread)
            return True


class _Thread(threading.Thread):
    """One of them; it waits until something is given to it."""

    def __init__(self, next_job: Callable[[_Thread], bool], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._next_job = next_job
        self._job: Job | None = None
        self._given = threading.Lock()  # held while it waits
        self._given.acquire()

    def give(self, job: Job | None) -> None:
        """Have it do this next; None ends it."""
        self._job = job
        self._given.release()

    def run(self) -> None:
        while self._given.acquire() and (job := self._job) is not None:
            self._job = None
            loop, future, function, arguments = job
            result: Any = None
            problem: BaseException | None = None
            try:
                result = function(*arguments)
            except BaseException as raised:
                problem = raised
            # It rests before its caller hears of the end, so that the caller's next call finds it.
            goes_on = self._next_job(self)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_done, future, result, problem)
            del job, future, function, arguments, result, problem  # nothing is kept while it waits
            if not goes_on:
                return


def _done(future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
    if future.done():  # its caller left
        return
    if problem is not None:
        future.set_exception(problem)
    else:
        future.set_result(result)
