"""Modules of PyTorch and models in ONNX, when a run logs one: kept as a graph, which runs no code when it is loaded.

A module is run on a sample of its input and exported to ONNX; the graph must answer as the module does, also for another
number of rows. What ONNX cannot say is exported as a program of PyTorch's own (`torch.export`), which loads without
pickle, too. A pickled module would need its class, and runs whatever the file says.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from instar.core.errors import BadInput
from instar.core.silence import keep_silence

log = logging.getLogger("instar.run")

GRAPH, PROGRAM = "model.onnx", "data/model.pt2"  # the places at which MLflow's clients look
INPUT = "input"
TOLERANCE = 1e-5  # of the largest answer, and at least of 1: both forms count in single precision, in another order


@dataclass(frozen=True)
class Kept:
    """A model as files: what each flavour's loader needs, the files by path, and the packages by name."""

    flavors: dict[str, dict[str, Any]]
    files: Mapping[str, bytes]
    packages: tuple[str, ...]


class NotAlike(Exception):
    """There is no graph in ONNX that answers as the module does; says why."""


def is_module(model: Any) -> bool:
    """Is it a module of PyTorch?"""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "torch.nn.modules.module.Module" for kind in type(model).__mro__
    )


def is_graph(model: Any) -> bool:
    """Is it a model in ONNX: of the package `onnx`, or its file?"""
    if isinstance(model, str | Path):
        return str(model).endswith(".onnx")
    return type(model).__name__ == "ModelProto" and type(model).__module__.split(".")[0] == "onnx"


def of_graph(model: Any, sample: Any) -> Kept:
    """A model in ONNX, as it is.

    Raises:
        BadInput: It does not run here.
    """
    try:
        data = Path(model).read_bytes() if isinstance(model, str | Path) else model.SerializeToString()
    except (OSError, ValueError) as error:
        raise BadInput("the ONNX model cannot be read", found=str(error)[:200]) from error
    try:
        session = _session(data)
        if sample is not None and len(session.get_inputs()) == 1:
            _run(session, _matrix(sample))
    except NotAlike as error:
        raise BadInput(
            "the ONNX model does not run", found=str(error),
            asked="one file with its weights in it, and a sample that it takes",
        ) from error  # fmt: skip
    return _graph(data)


def of_module(module: Any, sample: Any) -> Kept:
    """A module of PyTorch that takes one tensor.

    Raises:
        BadInput: There is no sample, the module does not take it, or it cannot be exported at all.
    """
    if sample is None:
        raise BadInput(
            "a module of PyTorch is exported by running it", asked="a sample of its input: rows, as it is asked",
            next_step="Give it: run.log_model(module, sample=rows)",
        )  # fmt: skip
    torch = _torch()

    with _quiet(), torch.no_grad():
        try:
            still = copy.deepcopy(module).cpu().eval()  # as it answers, and not in the way of the training
            given = _tensor(still, sample)
            said = _tensors(still(given))
        except Exception as error:  # whatever a module raises
            raise BadInput(
                "the module does not take the sample", found=f"{type(error).__name__}: {error}"[:300],
                asked="one tensor or matrix in, tensors out", next_step="Log it with MLflow's client.",
            ) from error  # fmt: skip
        try:
            data = _exported(still, given, len(said))
            _compare(still, _session(data), given)
        except NotAlike as why:
            log.warning("the module is kept as a program of PyTorch, not in ONNX: %s", why)
            return _program(still, given)
    return _graph(data, "torch")


def version(package: str) -> str:
    """The version of an installed package; empty without it."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def _graph(data: bytes, *more: str) -> Kept:
    flavors: dict[str, dict[str, Any]] = {
        "python_function": {"loader_module": "mlflow.onnx", "data": GRAPH},
        "onnx": {"onnx_version": version("onnx"), "data": GRAPH, "providers": ["CPUExecutionProvider"], "code": None},
    }
    return Kept(flavors, {GRAPH: data}, ("onnx", "onnxruntime", "numpy", "pandas", *more))


def _program(module: Any, given: Any) -> Kept:
    torch = _torch()

    buffer = io.BytesIO()
    try:
        program = torch.export.export(module, (given,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        torch.export.save(program, buffer)
    except Exception as error:  # each construct that cannot be exported has a class of its own
        raise BadInput(
            "the module can be exported neither to ONNX nor by torch.export",
            found=f"{type(error).__name__}: {error}"[:300],
            next_step="Keep its weights: torch.save(module.state_dict(), file), and run.log_artifact(file).",
        ) from error  # fmt: skip
    flavors: dict[str, dict[str, Any]] = {
        "python_function": {"loader_module": "mlflow.pytorch", "data": "data", "model_config": {"device": None}},
        "pytorch": {"model_data": "data", "pytorch_version": version("torch"), "code": None},
    }
    return Kept(flavors, {PROGRAM: buffer.getvalue()}, ("torch", "numpy", "pandas"))


def _exported(module: Any, given: Any, outputs: int) -> bytes:
    torch = _torch()

    buffer = io.BytesIO()
    names = [f"output{at or ''}" for at in range(outputs)]
    newer = importlib.util.find_spec("onnxscript") is not None  # without it, PyTorch's older exporter
    shapes: dict[str, Any] = (
        {"dynamic_shapes": ({0: torch.export.Dim.AUTO},)}
        if newer
        else {"dynamic_axes": {name: {0: "rows"} for name in (INPUT, *names)}}
    )
    try:
        with warnings.catch_warnings():
            # A branch on values, of which only the one taken now would be in the graph.
            warnings.simplefilter("error", torch.jit.TracerWarning)
            torch.onnx.export(
                module, (given,), buffer, input_names=[INPUT], output_names=names, dynamo=newer, **shapes
            )  # fmt: skip
    except Exception as error:  # each construct that cannot be exported has a class of its own
        older = "" if newer else " (the package onnxscript, PyTorch's newer exporter, is not installed)"
        raise NotAlike(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{older}") from error
    return buffer.getvalue()


def _compare(module: Any, session: Any, given: Any) -> None:
    for rows in (given, given[:1]):
        for mine, its in zip(_tensors(module(rows)), _run(session, rows.numpy()), strict=True):
            expected, found = np.asarray(mine, dtype=np.float64), np.asarray(its, dtype=np.float64)
            if expected.shape != found.shape:
                raise NotAlike(f"the graph answers with shape {found.shape}, the module with {expected.shape}")
            largest = float(np.abs(expected).max(initial=1.0))
            difference = float(np.abs(expected - found).max(initial=0.0))
            if not difference <= TOLERANCE * largest:
                raise NotAlike(f"its answers differ by {difference:.3g}")


def _session(data: bytes) -> Any:
    keep_silence()
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise NotAlike("the package onnxruntime, which runs it, is not installed") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises bare classes of its own for each kind of damage
        raise NotAlike(f"ONNX Runtime does not load it: {error}"[:300]) from error


def _run(session: Any, rows: Any) -> list[Any]:
    first = session.get_inputs()[0]
    kinds = {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    try:
        answers: list[Any] = session.run(None, {first.name: np.asarray(rows, kinds.get(first.type, np.float32))})
    except Exception as error:
        raise NotAlike(f"ONNX Runtime does not run it: {error}"[:300]) from error
    return answers


def _tensor(module: Any, sample: Any) -> Any:
    """The sample as the module takes it, two rows at least: of one alone an export would make a constant."""
    torch = _torch()

    given = sample.detach().cpu() if isinstance(sample, torch.Tensor) else torch.from_numpy(_matrix(sample).copy())
    if given.is_floating_point():
        kinds = [one.dtype for one in module.parameters() if one.is_floating_point()]
        given = given.to(kinds[0] if kinds else torch.float32)
    return torch.cat([given, given]) if len(given) == 1 else given


def _matrix(sample: Any) -> Any:
    rows = np.asarray(sample.to_numpy() if hasattr(sample, "to_numpy") else sample)
    if rows.ndim < 2 or rows.dtype.kind not in "biuf":
        raise BadInput(
            "that is no sample of rows", found=f"{rows.dtype} of shape {rows.shape}", asked="numbers, (rows, columns)"
        )
    return rows


def _tensors(answer: Any) -> list[Any]:
    found = (
        list(answer.values())
        if isinstance(answer, Mapping)
        else list(answer)
        if isinstance(answer, tuple | list)
        else [answer]
    )
    return [one.detach().numpy() for one in found]


def _torch() -> Any:
    return importlib.import_module("torch")  # it is there: somebody handed a module of it


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn about each other; what counts is compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
