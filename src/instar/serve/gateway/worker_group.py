"""A worker as a gateway sees it: its processes, calls that wait for one to begin, and calls whose process died.

A call goes to the process with the fewest calls. Where there is none it waits, and the root is asked for one. When a
process dies, the calls it had are asked once more, one at a time and beside no other: a model answers a question alike
however often it is asked. What ends a second process is refused from then on, and takes nobody with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

from instar.core.errors import InstarError, Unavailable
from instar.serve.gateway.poison import OnTrial, Poison
from instar.serve.gateway.upstream import Flight, Waiter, WorkerLine
from instar.serve.processes.needs import Cannot, Ended, Hung, Load, Lost, Need, ToRoot, Up
from instar.serve.protocol import wire

AWAKE_SECONDS = 2.0  # between two sweeps of a loop that turns; for what is beyond, this process itself stood still
WAITING_LIMIT = 2048  # calls that wait for a worker to begin
VERDICT_SECONDS = 1.0  # for which a call waits to hear how its process ended

_log = logging.getLogger("instar.serve")


class WorkerGroup:
    """The processes of one worker, and its calls.

    Args:
        place: Socket of a process by its number.
        tell: Tells the root.
        hang_seconds: After which a process that says nothing while calls wait is given up.
        call_seconds: After which a call is given up, however long it waited for the worker to begin.

    Attributes:
        retry: Calls whose process died are asked once more.
        warm: Bundles that are loaded, as far as it is known.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: str,
        place: Callable[[int], Path],
        tell: Callable[[ToRoot], object],
        hang_seconds: float,
        call_seconds: float,
    ) -> None:
        self._loop = loop
        self.worker = worker
        self._place = place
        self._tell_root = tell
        self._hang_seconds = hang_seconds
        self._call_seconds = call_seconds
        self._swept: float | None = None
        self.retry = True
        self.warm: set[str] = set()
        self.kept: dict[str, str] = {}
        self._plans: dict[int, bytes] = {}
        self._lines: dict[int, WorkerLine] = {}
        self._gone: set[int] = set()  # processes whose line broke off: a dying one may still take a connection
        self._open: list[WorkerLine] = []
        self._only: WorkerLine | None = None  # the line of most calls: there is one, and no call is on trial
        self._waiting: deque[Flight] = deque()
        self._suspects: deque[Flight] = deque()
        self._trial: tuple[WorkerLine, Flight] | None = None
        self._verdicts: list[tuple[int, Flight, asyncio.TimerHandle]] = []
        self._reasons: OrderedDict[int, str] = OrderedDict()
        self._poison = Poison(worker)
        self._cannot: tuple[str, float] | None = None
        self._openings: list[asyncio.Future[None]] = []

    # What a gateway asks.

    @property
    def up(self) -> bool:
        """Does a process take calls now?"""
        return bool(self._open)

    @property
    def backlog(self) -> int:
        """Calls that it has not answered yet."""
        line = self._only
        if line is not None:
            return len(line.flying)
        return len(self._waiting) + sum(len(one.flying) for one in self._open)

    @property
    def problem(self) -> str | None:
        """Why no process can be there at present, if so."""
        if self._cannot is None or self._cannot[1] < self._loop.time():
            return None
        return self._cannot[0]

    def send(self, plan: int, ask: wire.Ask, waiter: Waiter, messages: int) -> InstarError | None:
        """Hand a call over; `waiter` hears of it `messages` times, or that it failed. Returns why it is refused at once."""
        if self._poison:
            refused = self._poison.refused(plan, ask.body)
            if refused is not None:
                return refused
        flight = Flight(plan, ask, waiter, messages, self._loop.time())
        line = self._only
        if line is not None:
            line.send(flight)
            return None
        line = self._least()
        if line is not None:
            line.send(flight)
            return None
        problem = self.problem
        if problem is not None and not self._suspects:
            return Unavailable(
                f"the process that holds the model cannot be started: {problem}",
                subject=f"worker {self.worker}",
                next_step="See the server's log; it is tried again in a while.",
            )
        if len(self._waiting) >= WAITING_LIMIT:
            self._forget_late()
        if len(self._waiting) >= WAITING_LIMIT:
            return Unavailable(
                "too many calls wait for the model to be loaded",
                subject=f"worker {self.worker}",
                found=len(self._waiting),
                asked=f"{WAITING_LIMIT} at most",
                next_step="Send it again later.",
            )
        self._waiting.append(flight)
        if not self._lines and len(self._waiting) == 1:
            self._tell_root(Need(self.worker))
        return None

    async def load(self, bundle: str, folder: str, timeout: float, *, keep: bool = False) -> str | None:
        """Have a bundle ready; returns why it cannot be, or None.

        Args:
            keep: It stays loaded, also in a process that comes anew.
        """
        if keep:
            self.kept[bundle] = folder
        try:
            async with asyncio.timeout(timeout):
                await self._opening()
                reason = await self._open[0].load(bundle, folder, keep)
        except TimeoutError:
            return f"worker {self.worker} was not ready in {timeout:g} s: see the server's log"
        except Unavailable as problem:
            return str(problem)
        return reason

    def keep_only(self, bundles: set[str]) -> None:
        """Of what is reserved only these still are; processes that hold the others hear so."""
        for bundle in self.kept.keys() - bundles:
            del self.kept[bundle]
            for line in self._lines.values():
                line.release(bundle)

    def plan(self, plan: wire.Plan) -> None:
        """Know a plan by its number."""
        self._plans[plan.number] = wire.encode_struct(wire.PLAN, 0, plan)

    def forget(self, plans: set[int]) -> None:
        """Know only these plans, and those of calls that wait."""
        flying = [flight for line in self._lines.values() for flight in line.flying.values()]
        kept = plans | {flight.plan for flight in (*self._waiting, *self._suspects, *flying)}
        for number in self._plans.keys() - kept:
            del self._plans[number]

    def load_now(self, now: float) -> Load | None:
        """How busy it is, for the root; None when there is nothing to say."""
        flying = len(self._waiting)
        oldest, calls = now, 0
        for line in self._open:
            if line.flying:
                flying += len(line.flying)
                oldest = min(oldest, next(iter(line.flying.values())).since)
            calls += line.answered
            line.answered = 0
        return Load(flying, int((now - oldest) * 1000), calls) if flying or calls else None

    def sweep(self) -> None:
        """Give up calls that took too long, and processes that say nothing. Called every second or so."""
        now = self._loop.time()
        self._forgive(now)
        limit = now - self._call_seconds
        self._forget_late()
        late = [flight for line in self._lines.values() for flight in line.give_up(limit)]
        for queue in (self._waiting, self._suspects):
            while queue and queue[0].since <= limit:
                late.append(queue.popleft())
        for flight in late:
            self._fail(flight, f"did not answer within {self._call_seconds:g} s")
        self.ask_again()
        for line in self._open:
            silent = line.silence(now)
            if silent > self._hang_seconds:
                self._tell_root(Hung(self.worker, line.number, silent))

    def _forgive(self, now: float) -> None:
        """Time in which this process stood still (stopped, or on a machine that is busy) is no time that a worker took."""
        still = 0.0 if self._swept is None else now - self._swept - AWAKE_SECONDS
        self._swept = now
        if still > 0:
            flying = [flight for line in self._lines.values() for flight in line.flying.values()]
            for flight in (*flying, *self._waiting, *self._suspects):
                flight.since = min(now, flight.since + still)

    def close(self) -> None:
        """Hang up."""
        for line in list(self._lines.values()):
            line.close()

    # What the root says.

    def told(self, message: Up | Cannot | Ended) -> None:
        """The root spoke of this worker."""
        match message:
            case Up():
                self._have(message.copies)
            case Cannot():
                self._give_up(message)
            case Ended():
                self._hear_verdict(message)

    def ask_again(self) -> None:
        """The root may not have heard: called when the line to it is new."""
        if not self._lines and (self._waiting or self._suspects or self._openings):
            self._tell_root(Need(self.worker))

    def _have(self, told: tuple[int, ...]) -> None:
        copies = [number for number in told if number not in self._gone]
        for number in copies:
            if number not in self._lines:
                self._lines[number] = WorkerLine(
                    self._loop, number, self._place(number), self._plans, self._opened, self._lost, self._held
                )
        for number, line in list(self._lines.items()):
            if number in copies or line.draining:
                continue
            if line in self._open:
                self._set_open([one for one in self._open if one is not line])
                line.drain()
            else:  # it was never reached
                del self._lines[number]
                line.close()
        self._cannot = None if copies else self._cannot
        if not copies:
            self.warm.clear()
            if self._waiting or self._suspects:
                self._tell_root(Need(self.worker))

    def _give_up(self, message: Cannot) -> None:
        self._cannot = (message.reason, self._loop.time() + message.seconds)
        queues, self._waiting, self._suspects = (*self._waiting, *self._suspects), deque(), deque()
        for flight in queues:
            self._fail(flight, f"cannot be started: {message.reason}")
        openings, self._openings = self._openings, []
        for opening in openings:
            if not opening.done():
                opening.set_exception(Unavailable(message.reason, subject=f"worker {self.worker}"))

    def _hear_verdict(self, message: Ended) -> None:
        self._reasons[message.copy] = message.reason
        if len(self._reasons) > 16:
            self._reasons.popitem(last=False)
        for number, flight, timer in list(self._verdicts):
            if number == message.copy:
                timer.cancel()
                self._judge(number, flight)

    # The lines.

    def _opened(self, line: WorkerLine) -> None:
        self._set_open([*self._open, line])
        for bundle, folder in self.kept.items():
            self._loop.create_task(self._keep(line, bundle, folder))
        openings, self._openings = self._openings, []
        for opening in openings:
            if not opening.done():
                opening.set_result(None)
        self._next()

    async def _keep(self, line: WorkerLine, bundle: str, folder: str) -> None:
        try:
            reason = await line.load(bundle, folder, True)
        except Unavailable as problem:
            reason = str(problem)
        if reason is not None:
            _log.error("what is reserved does not load: %s", reason)

    def _lost(self, line: WorkerLine, lost: list[Flight]) -> None:
        self._lines.pop(line.number, None)
        if not line.draining:
            self._gone.add(line.number)
            self._tell_root(Lost(self.worker, line.number))
        self._set_open([one for one in self._open if one is not line])
        if not self._open:
            self.warm.clear()
        alone = self._trial is not None and self._trial[0] is line
        if alone:
            self._trial = None
        if lost:
            _log.warning("process %d of worker %s is gone; %d calls were in it", line.number, self.worker, len(lost))
        for flight in lost:
            flight.deaths += 1
            if self.retry and (flight.deaths == 1 or not alone):
                self._suspects.append(flight)
            else:
                timer = self._loop.call_later(VERDICT_SECONDS, self._judge, line.number, flight)
                self._verdicts.append((line.number, flight, timer))
                if line.number in self._reasons:
                    timer.cancel()
                    self._judge(line.number, flight)
        if not self._lines and (self._waiting or self._suspects):
            self._tell_root(Need(self.worker))
        self._next()

    def _held(self, line: WorkerLine, bundle: str, held: bool) -> None:
        if held:
            self.warm.add(bundle)
        elif all(one is line for one in self._open):
            self.warm.discard(bundle)

    def _set_open(self, lines: list[WorkerLine]) -> None:
        self._open = lines
        self._only = lines[0] if len(lines) == 1 and not self._suspects and self._trial is None else None

    def _least(self) -> WorkerLine | None:
        """The line with the fewest calls, without one that has a call on trial."""
        trial = self._trial[0] if self._trial is not None else None
        free = [line for line in self._open if line is not trial]
        # Where calls wait for their trial, a line is left to them.
        if self._suspects and trial is None and len(free) < 2:
            return None
        return min(free, key=lambda line: len(line.flying), default=None)

    def _next(self) -> None:
        """Go on: with calls on trial first, then with those that wait."""
        if self._trial is not None and not self._trial[0].flying:
            self._trial = None
        if self._suspects and self._trial is None:
            empty = next((line for line in self._open if not line.flying), None)
            if empty is not None:
                flight = self._suspects.popleft()
                self._trial = (empty, flight)
                flight.waiter = OnTrial(flight.waiter, self.trial_over)
                empty.send(flight)
            elif self._open:
                self._loop.call_later(0.005, self._next)  # until one has answered what it has
        self._set_open(self._open)
        while self._waiting:
            line = self._least()
            if line is None:
                break
            flight = self._waiting.popleft()
            if not _late(flight):
                line.send(flight)

    def _forget_late(self) -> None:
        """Calls whose time is over were refused: nobody waits for what they would be answered."""
        self._waiting = deque(flight for flight in self._waiting if not _late(flight))

    def trial_over(self) -> None:
        """A call on trial was answered."""
        self._loop.call_soon(self._next)

    def _judge(self, number: int, flight: Flight) -> None:
        self._verdicts = [one for one in self._verdicts if one[1] is not flight]
        reason = self._reasons.get(number, "its end was not seen")
        if flight.deaths > 1:
            _log.error("worker %s: a request ended two processes and is refused from now on: %s", self.worker, reason)
            flight.waiter.failed(self, self._poison.add(flight.plan, flight.ask.body, reason))
        else:
            self._fail(flight, f"ended while it worked on this call: {reason}")

    def _fail(self, flight: Flight, what: str) -> None:
        problem = Unavailable(
            f"the process that holds the model {what}",
            subject=f"worker {self.worker}",
            next_step="Send the request again; the worker is being replaced.",
        )
        flight.waiter.failed(self, problem)

    async def _opening(self) -> None:
        """Wait until a process takes calls."""
        if self._open:
            return
        opening: asyncio.Future[None] = self._loop.create_future()
        self._openings.append(opening)
        if not self._lines:
            self._tell_root(Need(self.worker))
        await opening


def _late(flight: Flight) -> bool:
    return 0 < flight.ask.deadline < time.monotonic_ns()
