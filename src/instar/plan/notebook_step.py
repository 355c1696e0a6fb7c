"""A whole notebook as a step, declared in a project's Python file at planning time: run from top to bottom, its outputs kept.

    explore = notebook("explore_delays.ipynb", inputs=["delay_features"], outputs=["late_by_hour.png"])

What its cell tagged `parameters` assigns are the step's parameters, so `-S explore_delays.weeks=8` sets one. Its key is made
of its code cells and what they import, of its inputs and parameters; running it in Jupyter changes nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Unpack

from instar.core.errors import PipelineError
from instar.plan import notebooks
from instar.plan.steps import DEFAULT_FORM, Common, Input, Step, declared, did_you_mean, form_of, names_of

KIND = "notebook"


def notebook(
    path: str,
    *,
    name: str | None = None,
    inputs: Sequence[str] | Mapping[str, object] = (),
    parameters: Mapping[str, object] | None = None,
    outputs: Sequence[str] = (),
    **common: Unpack[Common],
) -> Step:
    """Declare a notebook that runs as a step of the pipeline.

    Args:
        path: The notebook, from the project's folder.
        name: Name of the step; default the file's, without its ending.
        inputs: Tables that it reads. They are there as variables of their names, as Polars frames; as a mapping, in the
            form that each name is given, e.g. `{"delay_features": pl.LazyFrame}`.
        parameters: Values instead of those in its cell tagged `parameters`.
        outputs: Files that it writes, as patterns relative to its own folder, kept beside the executed notebook.
        common: `files`, `variables`, `ignore`, `retries`, `retry_after` and `timeout`: see `steps.Common`.
    """
    called = name or re.sub(r"\W+", "_", PurePosixPath(path).stem).strip("_")
    subject = f"notebook {path}"
    if not path.endswith(notebooks.SUFFIX):
        raise PipelineError("a notebook's file ends in .ipynb", subject=subject, found=path)
    if not called.isidentifier():
        raise PipelineError("a step cannot have that name", subject=subject, found=repr(called), asked="name=")
    forms = inputs if isinstance(inputs, Mapping) else dict.fromkeys(names_of(inputs) or (), DEFAULT_FORM)
    told, terms = declared(common, subject)
    return Step(
        called,
        KIND,
        inputs=tuple(Input(table, form_of(form)) for table, form in forms.items()),
        parameters=dict(parameters or {}),
        options={"notebook": path, "outputs": names_of(outputs) or (), **told},
        file=sys._getframe(1).f_code.co_filename,
        terms=terms,
    )


def completed(step: Step, root: Path, text_of: Callable[[Path], str]) -> Step:
    """The step with the parameters that its notebook declares.

    Args:
        root: The project's folder.
        text_of: Reads a file.

    Raises:
        PipelineError: The notebook is missing, is none, or has no such parameter.
    """
    path = str(step.options["notebook"])
    try:
        cells = notebooks.cells_of(text_of(file_of(step, root)), path)
    except OSError as error:
        raise PipelineError(
            "the notebook cannot be read",
            subject=f"step {step.name}",
            found=error.strerror or str(error),
            asked=str(root / path),
            next_step="Paths of notebooks start at the project's folder.",
        ) from None
    notebooks.tree_of(notebooks.program_text(cells), f"notebook {path}")
    known = notebooks.defaults_of(cells, path)
    for one in step.parameters:
        if one not in known:
            tagged = any(notebooks.PARAMETERS in cell.tags for cell in cells)
            raise PipelineError(
                f"the notebook has no parameter {one!r}"
                if tagged
                else f"it sets {one!r}, and no cell of the notebook is tagged {notebooks.PARAMETERS!r}",
                subject=f"step {step.name}, notebook {path}",
                asked=", ".join(known) or f"a cell tagged {notebooks.PARAMETERS!r} which assigns {one} a default",
                next_step=did_you_mean(one, known) or "Add the tag in Jupyter: View, Right Sidebar, Cell Tags.",
            )
    return replace(step, parameters={**known, **step.parameters})


def file_of(step: Step, root: Path) -> Path:
    """The file of a notebook step."""
    return root.resolve() / str(step.options["notebook"])
