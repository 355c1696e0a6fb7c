"""The threads in which handlers run, and files are read and written, while a server is up.

One queue and one future a call: half of what `concurrent.futures` takes, which every small call would pay. Measured in
docs/decisions/16-control-process.md.
"""

from __future__ import annotations

import asyncio
import queue
import threading
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
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # handed over and not done; counted on the event loop alone

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` returns or raises, called in a thread. Who stops waiting does not stop it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._busy += 1
        if self._busy > len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((loop, future, function, arguments))
        return await future

    def close(self) -> None:
        """Let the threads end when what was handed over is done, and wait for them."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, function, arguments = job
            result: Any = None
            problem: BaseException | None = None
            try:
                result = function(*arguments)
            except BaseException as raised:
                problem = raised
            try:
                loop.call_soon_threadsafe(self._done, future, result, problem)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del job, future, function, arguments, result, problem  # nothing is kept while it waits

    def _done(self, future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
        self._busy -= 1
        if future.done():  # its caller left
            return
        if problem is not None:
            future.set_exception(problem)
        else:
            future.set_result(result)
