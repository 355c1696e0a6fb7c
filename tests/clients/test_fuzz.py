"""Ten thousand requests without sense: what `tests/serve/test_fuzz.py` sends by the hundred in each run."""

from __future__ import annotations

import pytest

from instar.serve.log.calls import CallLog
from instar.serve.root.process import ServerTree
from tests.serve.conftest import folder as folder
from tests.serve.test_fuzz import hold
from tests.serve.test_fuzz import server as server
from tests.serve.test_server import log as log

EXAMPLES = 10_000


@pytest.mark.timeout(1800)  # some minutes, more on a machine with other work
def test_nothing_of_ten_thousand_requests_is_a_fault_of_the_server(server: ServerTree, log: CallLog) -> None:
    sender = hold(server, log, EXAMPLES)
    assert sum(sender.statuses.values()) > EXAMPLES / 2
    assert len(sender.calls) > EXAMPLES / 3
