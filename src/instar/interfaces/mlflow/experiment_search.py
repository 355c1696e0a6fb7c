"""Searching experiments over MLflow's protocol, by pages; clients before 1.30 list them."""

from __future__ import annotations

from msgspec import field

from instar.core.identity import Permission
from instar.interfaces.mlflow.experiments import document
from instar.interfaces.mlflow.frame import Call, Message, Operation
from instar.interfaces.mlflow.limits import page_size
from instar.interfaces.mlflow.messages import ExperimentOut, SearchExperiments
from instar.interfaces.mlflow.words import view
from instar.train import experiment_search

PAGE = 1000


class ManyExperiments(Message):
    """Answer: a page of experiments."""

    experiments: list[ExperimentOut] = field(default_factory=list)
    next_page_token: str | None = None


def search(call: Call, asked: SearchExperiments) -> ManyExperiments:
    """Experiments that a filter names, by pages."""
    page = experiment_search.search(
        call.store,
        [call.project],
        filter=asked.filter or "",
        order_by=asked.order_by or (),
        view=view(asked.view_type),
        limit=page_size(asked.max_results, PAGE),
        token=asked.page_token or None,
    )
    return ManyExperiments(experiments=[document(item) for item in page.items], next_page_token=page.token)


operations = [
    Operation("GET", "experiments/search", Permission.READ, search, SearchExperiments),
    Operation("POST", "experiments/search", Permission.READ, search, SearchExperiments),
    Operation("GET", "experiments/list", Permission.READ, search, SearchExperiments),
]
