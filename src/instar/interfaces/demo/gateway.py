"""The driver's side of the wire: calls go to the server one flight a call, outcomes in batches; nothing goes another way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType

import httpx2
import msgspec

from instar.core.errors import Unavailable
from instar.serve.clients.client import Answer, Ask, InferClient

TRIES = 5  # a call without an answer is asked again, as a new call, this often
PAUSE_SECONDS = 0.5  # before the first repetition; twice as long before each further one
NOT_NOW = frozenset({0, 429, 502, 503, 504})  # statuses after which asking again may help
BATCH = 5_000  # outcomes of one posting
CONNECTIONS = 12  # calls at once: more would only wait for each other in front of two processors


@dataclass(frozen=True)
class Truth:
    """What became of a prediction, and when that was known."""

    prediction: str
    value: bool
    observed_at: datetime


class Gateway:
    """A server, as an application outside sees it.

    Args:
        url: Where it listens.
        endpoint: What is asked.
    """

    def __init__(self, url: str, endpoint: str) -> None:
        self._infer = InferClient(url, endpoint, CONNECTIONS)
        self._http = httpx2.Client(base_url=url, timeout=60.0)
        self._endpoint = endpoint

    @property
    def inputs(self) -> list[str]:
        """Columns that the endpoint takes."""
        return list(self._infer.inputs)

    def ask(self, asks: Sequence[Ask]) -> list[str]:
        """Prediction ids, in the order of `asks`.

        Raises:
            Unavailable: Some call was refused, or had no answer after `TRIES` tries.
        """
        answers: list[Answer] = self._infer.infer_all(asks)
        pause = PAUSE_SECONDS
        for _ in range(TRIES):
            again = [place for place, answer in enumerate(answers) if answer.status in NOT_NOW]
            if not again:
                break
            time.sleep(pause)
            pause *= 2
            for place, answer in zip(again, self._infer.infer_all([asks[place] for place in again]), strict=True):
                answers[place] = answer
        refused = [answer for answer in answers if answer.status != 200]
        if refused:
            raise Unavailable(
                f"{len(refused)} of {len(answers)} calls had no answer: {refused[0].error}",
                subject=f"endpoint {self._endpoint}",
                found=f"status {refused[0].status}",
                next_step="See serve/server.log in the store; the same command goes on from here.",
            )
        return [answer.prediction for answer in answers]

    def post(self, truths: Sequence[Truth]) -> None:
        """Post outcomes.

        Raises:
            Unavailable: The server did not take them.
        """
        for start in range(0, len(truths), BATCH):
            items = [
                {"prediction": one.prediction, "value": one.value, "observed_at": one.observed_at.isoformat()}
                for one in truths[start : start + BATCH]
            ]
            reply = self._send(msgspec.json.encode({"outcomes": items}))
            if reply.status_code not in (200, 202):
                raise Unavailable(
                    f"outcomes were not taken: {reply.text[:300]}",
                    subject="POST /api/outcomes",
                    found=f"status {reply.status_code}",
                )

    def _send(self, body: bytes) -> httpx2.Response:
        """Post, and post again while the server cannot take it: the same outcome twice has no effect."""
        pause = PAUSE_SECONDS
        for _ in range(TRIES):
            reply = self._http.post("/api/outcomes", content=body, headers={"content-type": "application/json"})
            if reply.status_code not in NOT_NOW:
                return reply
            time.sleep(pause)
            pause *= 2
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._infer.close()
        self._http.close()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()
