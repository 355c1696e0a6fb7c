"""A judged bundle, ready to be registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from instar.core.store import Store
from instar.evaluate.evaluation import Evaluation
from instar.evaluate.gates import Latency
from instar.evaluate.judging import evaluate
from instar.release.scan import admit
from tests.evaluate.bundles import PROBLEM, make_bundle, parts

Judge = Callable[..., Evaluation]


@pytest.fixture
def judge(store: Store) -> Judge:
    """Makes a bundle and evaluates it; `p99_ms` over 20 fails a gate, None leaves it undecided."""

    def judged(*, p99_ms: float | None = 2.0, **bundle: Any) -> Evaluation:
        return evaluate(
            store,
            "flights",
            "delay",
            PROBLEM,
            bundle=make_bundle(store, **bundle),
            table_version="tver_9",
            cut=parts(),
            event_time="at",
            inspect=admit,
            probe=None if p99_ms is None else lambda scorer, rows: Latency(0.5, p99_ms, 300, "in a test"),
            contract="b3:contract",
        )

    return judged
