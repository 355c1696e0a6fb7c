"""Runs from any script or notebook, at the moment of training: recorded whether or not a server is there.

    with instar.run("delay", parameters={"depth": 6}) as run:         # or: run = instar.run("delay"); ...; run.finish()
        for epoch in range(10):
            run.log(loss=train(epoch), step=epoch)
        run.log_figure(plot(), "curves")

Logging appends to a local spool and returns. A thread delivers it to the server (`INSTAR_URL`, or the one that runs here) or
to the store of the project here; while none answers, the training neither fails nor waits, and `instar runs sync` delivers
later what was left. Threads and forked children may log to the same run.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from instar.app import staging
from instar.core import ids
from instar.core.errors import BadInput, Conflict, StoreFull
from instar.interfaces.sdk import ending, media, origin
from instar.interfaces.sdk.inputs import input_of
from instar.interfaces.sdk.place import Place, find
from instar.interfaces.sdk.recorder import Recorder
from instar.interfaces.sdk.sampler import EVERY_SECONDS, Sampler
from instar.interfaces.sdk.values import clean, named, plain, relative, step_of, text_of
from instar.train.spool_records import Artifact, Input, Model, Parameters, Remark, Start, Tags

log = logging.getLogger("instar.run")

WAIT_SECONDS = 5.0  # at the end, for the last records to be delivered
LONGEST_EXPERIMENT = 500  # characters


def run(
    experiment: str = "default",
    *,
    name: str = "",
    parameters: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    inputs: Sequence[Any] = (),
    project: str | None = None,
    url: str | None = None,
    resources: bool | float = True,
    wait_seconds: float = WAIT_SECONDS,
) -> Run:
    """Begin a run; end it with `finish()`, or use it in a `with` block.

    Args:
        experiment: Its group of runs; may be a path such as `team/project/experiment`.
        name: A name for people; the id is made here.
        parameters: What was chosen; each is set once.
        inputs: What it reads: table versions such as `"delay_features@3"`, files, or frames.
        project: Whose run it is; default the project here, else `default`.
        url: The server; default `INSTAR_URL`, then the server on the project's store, then the store itself.
        resources: Record what the machine and the process use: every 10 seconds, or every so many.
        wait_seconds: How long its end may wait for the last records to be delivered.

    Raises:
        BadInput: A name or a value cannot be recorded.
    """
    good = all(part.strip() for part in experiment.split("/")) and experiment == clean(experiment)
    if not good or len(experiment) > LONGEST_EXPERIMENT:
        raise BadInput("that is no experiment", found=repr(experiment[:80]), asked="a name, or team/project/experiment")
    place = find(project, url)
    return Run._begin(place, experiment, name, parameters, tags, inputs, None, resources, wait_seconds)


class Run:
    """A run that is being recorded. Made by `instar.run`.

    Attributes:
        id: Sorts by the time of its beginning; known before anybody else knows of the run.
        experiment, project: Where it belongs.
    """

    def __init__(self, recorder: Recorder, experiment: str, wait_seconds: float = WAIT_SECONDS) -> None:
        self.id, self.project, self.experiment = recorder.run, recorder.place.project, experiment
        self._recorder, self._wait = recorder, wait_seconds
        self._sampler: Sampler | None = None
        self._origin = origin.Origin()
        self._steps: dict[str, int] = {}  # the next step of each metric
        self._parameters: dict[str, Any] = {}

    @classmethod
    def _begin(
        cls, place: Place, experiment: str, name: str, parameters: Mapping[str, Any] | None,
        tags: Mapping[str, Any] | None, inputs: Sequence[Any], parent: Run | None, resources: bool | float, wait: float,
    ) -> Run:  # fmt: skip
        chosen = {named(key): plain(value) for key, value in (parameters or {}).items()}
        tagged = {named(key): text_of(value) for key, value in (tags or {}).items()}
        tagged |= origin.repeats() if parent is None else {}
        read = [input_of(one) for one in inputs]
        made = cls(Recorder(place, ids.new_id("run")), experiment, wait)
        made._parameters.update(chosen)
        made._start(name, chosen, tagged, parent, read)
        if resources:
            every = EVERY_SECONDS if resources is True else float(resources)
            made._sampler = Sampler(made._recorder.points, every_seconds=every)
        made._recorder.send()
        ending.watch(made)
        return made

    def _start(
        self, name: str, parameters: dict[str, Any], tags: dict[str, str], parent: Run | None, inputs: list[Input]
    ) -> None:
        recorder = self._recorder
        if parent is None:
            found = origin.capture(lambda: staging(recorder.folder / "files"), recorder.place.root)
        else:
            found = parent._origin.shared(parent._recorder.folder, recorder.folder)
        self._origin = found
        recorder.write(
            Start(
                self.project, self.experiment, recorder.now(), name, parent.id if parent else None, parameters, tags, [],
                found.environment, found.lock, found.conditions, found.code, os.getpid(),
            )
        )  # fmt: skip
        for one in inputs:
            recorder.write(one)
        for path, data in found.files.items():
            self._keep(path, data)

    # Metrics, parameters, tags.

    def log(self, metrics: Mapping[str, Any] | None = None, /, *, step: int | None = None, **more: Any) -> None:
        """Log values of metrics, by mapping or by keyword.

        Args:
            step: Counts within the run; default one more than the last step of any of these metrics.

        Raises:
            BadInput: A value is no number, a name is no name, or the step is no whole number.
            Conflict: The run has ended.
        """
        values = {**metrics, **more} if metrics else more
        try:
            numbers = {name: float(value) for name, value in values.items()}
        except (TypeError, ValueError) as error:
            raise BadInput("that is no value of a metric", found=str(error), asked="numbers") from None
        step = None if step is None else step_of(step)
        steps = self._steps
        with self._recorder.lock:
            if step is None:
                step = max((steps.get(name, 0) for name in numbers), default=0)
            for name in numbers:
                if name not in steps:
                    named(name)
                steps[name] = step + 1
        if self._recorder.ended:
            self._refuse()
        self._recorder.points(numbers, step)

    def log_metric(self, name: str, value: Any, *, step: int | None = None) -> None:
        """Log one value of one metric; as `log`."""
        self.log({name: value}, step=step)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters that this process has set."""
        return dict(self._parameters)

    def log_parameters(self, parameters: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set parameters that became known later.

        Raises:
            Conflict: One is set already, to another value.
        """
        values = {named(key): plain(value) for key, value in {**(parameters or {}), **more}.items()}
        with self._recorder.lock:
            for name, value in values.items():
                if self._parameters.get(name, value) != value:
                    raise Conflict(
                        "a parameter is set once", subject=f"parameter {name}", found=self._parameters[name],
                        asked=value, next_step="Log what changes as a metric, or begin another run.",
                    )  # fmt: skip
            self._parameters.update(values)
        self._write(Parameters(values))

    log_params = log_parameters  # as users of other trackers know it

    def tag(self, tags: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set tags; the same name again changes its value."""
        self._write(Tags({named(key): text_of(value) for key, value in {**(tags or {}), **more}.items()}))

    def note(self, text: str) -> str:
        """Write a note on the run, for people; returns its id."""
        from instar.core.notes import checked

        note = ids.new_id("note")
        self._write(Remark(note, checked(text), self._recorder.now()))
        return note

    # Files.

    def log_artifact(self, path: str | Path, *, as_: str | None = None) -> None:
        """Keep a file, or all files of a folder, with the run. They are copied now, and sent in the background.

        Args:
            as_: Path within the run; default the file's or the folder's name.

        Raises:
            BadInput: There is no such file, or `as_` is no relative path.
        """
        source = Path(path)
        target = relative(as_ or source.name)
        if source.is_dir():
            for file in sorted(source.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    self._keep(f"{target}/{file.relative_to(source).as_posix()}", file)
        elif source.is_file():
            self._keep(target, source)
        else:
            raise BadInput("there is no such file or folder", found=str(path))

    def log_text(self, text: str, path: str) -> None:
        """Keep a text as a file."""
        self._keep(relative(path), text.encode())

    def log_json(self, value: Any, path: str) -> None:
        """Keep a value as a JSON file."""
        self._keep(relative(path), msgspec.json.format(msgspec.json.encode(value, enc_hook=plain), indent=2))

    def log_figure(self, figure: Any, path: str) -> None:
        """Keep a figure: of matplotlib as PNG (or as the path ends), of plotly as a page."""
        data, place = media.figure(figure, relative(path))
        self._keep(place, data)

    def log_image(self, image: Any, path: str) -> None:
        """Keep an image of Pillow, an array or a tensor (height, width[, channels]) as PNG."""
        data, place = media.image(image, relative(path))
        self._keep(place, data)

    def log_table(self, rows: Any, path: str) -> None:
        """Keep a table as Parquet: a frame of Polars or pandas, columns by name, or rows as mappings."""
        data, place = media.table(rows, relative(path))
        self._keep(place, data)

    def log_model(self, model: Any, name: str = "model", *, sample: Any = None) -> str:
        """Keep a fitted estimator of scikit-learn, XGBoost or LightGBM, a PyTorch module, or a model in ONNX; returns its id.

        It is a logged model like one that MLflow's client logs: it can be registered, approved, served, and loaded by
        `mlflow.pyfunc.load_model`.

        Args:
            model: A module takes one tensor, and is kept as a graph: in ONNX, or as `torch.export` has it, never pickled.
                ONNX is a `ModelProto` or the path of its file.
            sample: Some rows as the model is asked: a frame or a matrix. They say its inputs; without them it is not
                served. A module is run on them, so it needs them.

        Raises:
            BadInput: It is no such model, cannot be pickled or exported, or the rows have types that no call can bring.
        """
        from instar.interfaces.sdk import models

        chosen = models.checked_name(name)
        folder = models.folder_of(model, sample, run=self.id)
        kept = [(path, *stored) for path, data in folder.items() if (stored := self._stage(path, data)) is not None]
        made = models.new_id()
        if len(kept) == len(folder):
            self._write(Model(made, chosen, kept))
        return made

    def log_input(self, data: Any, *, name: str = "", context: str = "") -> None:
        """Say that the run reads something: a table version (`"features@3"`), a file, a frame, or an address.

        Args:
            name: For files and frames.
            context: What for, e.g. `"training"`.
        """
        self._write(input_of(data, name=name, context=context))

    # Other runs.

    def child(self, name: str = "", *, parameters: Mapping[str, Any] | None = None, **about: Any) -> Run:
        """Begin a run within this one, e.g. a fold or a trial, in the same experiment; takes what `instar.run` takes."""
        return Run._begin(
            self._recorder.place, self.experiment, name, parameters, about.get("tags"), about.get("inputs", ()), self,
            about.get("resources", False), about.get("wait_seconds", self._wait),
        )  # fmt: skip

    # The end.

    def finish(self) -> None:
        """End the run well. Waits a moment until the last records are delivered; what is not stays in the spool."""
        self._end("finished", None)

    def fail(self, error: BaseException | str) -> None:
        """End the run with the error that stopped it."""
        if isinstance(error, BaseException):
            self._end(*ending.state_of(error))
        else:
            self._end("failed", error)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.fail(error)

    def __repr__(self) -> str:
        return f"<run {self.id} of {f'{self.project}/' if self.project else ''}{self.experiment}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process that is handed the run writes its own part of it, which the process here delivers.
        return (_attached, (self._recorder.place, self.id, self.experiment))

    def _end(self, state: str, error: str | None, within: float | None = None) -> None:
        recorder = self._recorder
        if recorder.ended:
            return
        if recorder.main:
            if self._sampler is not None:
                self._sampler.stop()
            if origin.in_notebook():
                for path, data in origin.source().items():
                    self._keep(path, data)
        ending.forget(self)
        delivered = recorder.end(state, error, self._wait if within is None else min(within, self._wait))
        if recorder.main and recorder.sender is not None and not delivered:
            _say_how_to_sync(recorder)

    def _keep(self, path: str, data: bytes | Path) -> None:
        stored = self._stage(path, data)
        if stored is not None:
            self._write(Artifact(path, *stored))

    def _stage(self, path: str, data: bytes | Path) -> tuple[str, int] | None:
        """Put content beside the spool: its digest and size; None, and the loss is counted, where there is no room."""
        if self._recorder.ended:
            self._refuse()
        try:
            files = staging(self._recorder.folder / "files")
            if isinstance(data, Path):
                return files.put_file(data), data.stat().st_size
            return files.put(data), len(data)
        except (OSError, StoreFull) as error:
            self._recorder.lose(f"the file {path}: {error}")
            return None

    def _write(self, record: Artifact | Input | Model | Parameters | Remark | Tags) -> None:
        if self._recorder.ended:
            self._refuse()
        self._recorder.write(record)

    def _refuse(self) -> None:
        raise Conflict("the run has ended", subject=f"run {self.id}", next_step="Log before its end, or begin another.")


def _attached(place: Place, run: str, experiment: str) -> Run:
    return Run(Recorder(place, run, main=False), experiment)


def _say_how_to_sync(recorder: Recorder) -> None:
    place = recorder.place
    where = f" --url {place.url}" if place.url else " --url http://HOST:PORT" if place.store is None else ""
    why = f" ({recorder.sender.trouble})" if recorder.sender is not None and recorder.sender.trouble is not None else ""
    print(
        f"instar: run {recorder.run} is not delivered yet{why}.\n"
        f"It is kept in {recorder.folder}; deliver it with: instar runs sync{where}",
        file=sys.stderr,
    )
