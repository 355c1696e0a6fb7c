"""What a client lists and looks up of a project's record: tables, runs with their files, experiments, models and notes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from instar.interfaces.sdk.connection import Connection
from instar.interfaces.wire import error_of

UNASKED = 100  # runs, where neither a number nor a search is given


class Records(Connection):
    """The part of a client that reads the record of what was made."""

    def tables(self) -> list[dict[str, Any]]:
        """The newest version of each table."""
        return self._listing("tables")

    def runs(
        self,
        *,
        experiment: str | None = None,
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Runs, the newest first, or those that pass a search.

        Args:
            experiment: Only runs of the experiment of that name.
            filter: In MLflow's language and beyond, e.g. `"metrics.loss < 0.5 AND params.depth = '6'"`.
            order_by: Keys such as `"metrics.loss ASC"`.
            limit: At most so many; default all that pass a search, and 100 without one.

        Raises:
            BadInput: The filter or a key cannot be read.
        """
        if limit is None and not filter and not order_by:
            limit = UNASKED
        query = {"experiment": experiment, "filter": filter or None, "order_by": list(order_by) or None}
        return self._pages("search/runs", "runs", query, limit)

    def run(self, run: str) -> dict[str, Any]:
        """One run; the beginning of its id is enough.

        Raises:
            NotFound: There is no such run.
        """
        return dict(self._json("GET", self._path(f"runs/{quote(run, safe='')}")))

    def reproductions(self, run: str) -> list[dict[str, Any]]:
        """Verdicts of those who made a run again, the newest first: who, when, and the first cause where it differs.

        Raises:
            NotFound: There is no such run.
        """
        return list(self._json("GET", self._path(f"runs/{quote(run, safe='')}/reproductions"))["reproductions"])

    def history(self, run: str, metric: str) -> list[dict[str, Any]]:
        """All values of one metric of a run, by step: `step`, `value` (None is no number), `at`."""
        place = f"runs/{quote(run, safe='')}/history/{quote(metric, safe='')}"
        return self._pages(place, "values", {}, None)

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """All files of a run: `path`, `size` in bytes, `blob`."""
        return list(self._json("GET", self._path(f"runs/{quote(run, safe='')}/artifacts"))["artifacts"])

    def download(self, run: str, path: str, to: str | Path) -> Path:
        """Write a file of a run to `to`, a file or a folder that is there; streamed. Returns where it is.

        Raises:
            NotFound: There is no such run or file.
        """
        target = Path(to) / path.rsplit("/", 1)[-1] if Path(to).is_dir() else Path(to)
        place = self._path(f"runs/{quote(run, safe='')}/artifacts/{quote(path)}")
        with self._reached(), self._http.stream("GET", place) as reply:
            if reply.status_code >= 400:
                raise error_of(reply.status_code, reply.read())
            with target.open("wb") as file:
                for block in reply.iter_bytes():
                    file.write(block)
        return target

    def experiments(self, *, filter: str = "", order_by: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Experiments of the project, or those that pass a search."""
        query = {"filter": filter or None, "order_by": list(order_by) or None}
        return self._pages("experiments", "experiments", query, None)

    def move_experiment(self, experiment: str, to: str, *, name: str | None = None) -> dict[str, Any]:
        """Move an experiment with all its runs to another project; ids stay.

        Args:
            experiment: Its id, or its name in this project.
            to: The project to which it goes.
            name: Its name there; the same by default.

        Raises:
            NotFound: There is no such experiment in this project.
            Conflict: It is deleted, or the name is taken there.
            BadInput: That cannot be the name of a project, or of an experiment.
        """
        found = [one["id"] for one in self.experiments() if experiment in (one["id"], one["name"])]
        place = self._path(f"experiments/{quote(found[0] if found else experiment, safe='')}/move")
        return dict(self._json("POST", place, {"project": to, "name": name}))

    def notes(self, subject: str | None = None) -> list[dict[str, Any]]:
        """Notes on a record (a run's id, `table@3`, `model@2`, a table, a model), or the newest of the project."""
        return self._listing("notes", {"subject": subject})

    def add_note(self, subject: str, text: str) -> dict[str, Any]:
        """Write a note on a record.

        Raises:
            NotFound: Nothing has that name.
        """
        return dict(self._json("POST", self._path("notes"), {"subject": subject, "text": text}))

    def models(self) -> list[dict[str, Any]]:
        """Registered models and their versions."""
        return self._listing("models")
