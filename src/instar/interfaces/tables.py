"""A table as a frame, read in a notebook or script while data is explored: `instar.table("delay_features")`.

In a notebook that runs as a step it is the very input that the pipeline read for it; elsewhere the newest version in the
store of the project that the working folder lies in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def table(name: str, form: object = "polars.DataFrame") -> Any:
    """The rows of a table.

    Args:
        name: The table, which is the step that makes it.
        form: The frame that is wanted: `pl.LazyFrame`, `pandas.DataFrame`, … or its name.

    Raises:
        NotFound: The project has no such table, or the notebook's step does not declare it as an input.
        PipelineError: There is no such form.
    """
    import polars as pl

    from instar.data import forms, tables
    from instar.plan.steps import form_of
    from instar.train.notebook_run import GIVEN

    wanted = form_of(form)
    given = os.environ.get(GIVEN)
    if given:
        return forms.convert(pl.read_ipc(_given(Path(given), name)).lazy(), wanted)
    from instar.app import open_app
    from instar.core.errors import NotFound

    with open_app() as app:
        version = tables.latest(app.store, app.project.name, name)
        if version is None:
            raise NotFound(
                "it has no rows yet",
                subject=f"table {name}",
                next_step=f"Make it first: instar run --target {name}",
            )
        rows = tables.scan(app.store, version)
        return forms.convert(rows, wanted)


def _given(folder: Path, name: str) -> Path:
    from instar.core.errors import NotFound

    file = folder / f"{name}.arrow"
    if not file.is_file():
        raise NotFound(
            "the notebook's step does not declare it as an input",
            subject=f"table {name}",
            found=", ".join(sorted(one.stem for one in folder.glob("*.arrow"))) or "no inputs",
            next_step=f'Add it where the notebook is declared: inputs=["{name}"].',
        )
    return file
