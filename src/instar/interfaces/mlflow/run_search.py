"""Searching runs over MLflow's protocol, by pages, whenever results are compared."""

from __future__ import annotations

from instar.core.identity import Permission
from instar.interfaces.mlflow import experiments
from instar.interfaces.mlflow.frame import Call, Message, Operation
from instar.interfaces.mlflow.limits import page_size
from instar.interfaces.mlflow.messages import RunOut, SearchRuns
from instar.interfaces.mlflow.run_documents import whole
from instar.interfaces.mlflow.words import view
from instar.train import run_search

PAGE = 1000


class ManyRuns(Message):
    """Answer: a page of runs."""

    runs: list[RunOut]
    next_page_token: str | None = None


def search(call: Call, asked: SearchRuns) -> ManyRuns:
    """Runs that a filter names, in the order asked for, by pages."""
    limit = page_size(asked.max_results, PAGE)
    lifecycle = view(asked.run_view_type)
    experiment_ids = experiments.ids(call, asked.experiment_ids or ())
    with call.store.database.read() as tx:
        found = run_search.find(
            tx, [call.project], experiment_ids, asked.filter or "", asked.order_by or (), lifecycle, limit,
            asked.page_token or None,
        )  # fmt: skip
    return ManyRuns(runs=whole(call.store, found.keys), next_page_token=found.token)


operations = [Operation("POST", "runs/search", Permission.READ, search, SearchRuns)]
