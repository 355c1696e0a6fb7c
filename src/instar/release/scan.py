"""Inspecting a pickled model before anything loads it: what it would import and call is read, never run.

A pickle is a program. This file steps through its instructions with `pickletools` and keeps the stack of names by itself;
the pickle may only import what is on the allow-list: constructors of arrays, containers of the standard library, classes
of scikit-learn's estimator modules, and names of the modules that came with the same bundle. Whatever is not on the
list, or cannot be followed, is refused: a list of known bad names is always one gadget behind.

    findings = inspect(path, allowed_modules=["pipeline"])
    findings.require("bundle b3:…")        # raises UnsafeModel and names what is refused

It proves what is imported, not that the bytes are good: a native form is still loaded only in a worker process.
"""

from __future__ import annotations

import pickletools
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instar.core.errors import UnsafeModel

_CONTAINERS = "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"
_SCALARS = (
    "bool bool_ bytes_ complex128 complex64 datetime64 dtype float16 float32 float64 int16 int32 int64 int8 intc intp longlong "
    "ndarray str_ timedelta64 uint16 uint32 uint64 uint8 uintp ulonglong"
)

# Exact names by module. Every entry was looked at: none runs code that its arguments choose.
ALLOWED: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "builtins": _CONTAINERS,
        "__builtin__": _CONTAINERS,  # as protocols 0 to 2 name it
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
        "copy_reg": "_reconstructor __newobj__ __newobj_ex__",
        "_codecs": "encode",  # how protocol 2 and below write bytes
        "collections": "Counter OrderedDict defaultdict deque",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "uuid": "UUID",
        "numpy": _SCALARS,
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.numeric": "_frombuffer",
        "numpy._core.numeric": "_frombuffer",
        "numpy.dtypes": "StringDType",
        "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
        "numpy.random._mt19937": "MT19937 __pyx_unpickle_MT19937",
        "numpy.random._pcg64": "PCG64",
        "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
        "scipy.sparse._csr": "csr_matrix csr_array",
        "scipy.sparse._csc": "csc_matrix csc_array",
        "polars.dataframe.frame": "DataFrame",
        "polars.series.series": "Series",
        "mlflow.models.signature": "_TypeHints",  # of every model of a user's own class: two fields, no code
        "sklearn.cluster._kmeans": "_kmeans_single_elkan _kmeans_single_lloyd",
        "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression r_regression",
        "sklearn.metrics._dist_metrics": (
            "ChebyshevDistance64 EuclideanDistance64 HammingDistance64 HaversineDistance64 ManhattanDistance64 "
            "MinkowskiDistance64 SEuclideanDistance64 newObj"
        ),
        "sklearn.neighbors._kd_tree": "KDTree KDTree64 KDTree32 newObj",
        "sklearn.neighbors._ball_tree": "BallTree BallTree64 BallTree32 newObj",
        "sklearn.utils._bunch": "Bunch",
        "lightgbm.basic": "Booster",
        "lightgbm.sklearn": "LGBMClassifier LGBMRanker LGBMRegressor",
        "xgboost.core": "Booster",
        "xgboost.sklearn": "XGBClassifier XGBRFClassifier XGBRFRegressor XGBRanker XGBRegressor",
    }.items()
}

# Names that a pickle inside of PyTorch's archives may import besides: tensors of its own storages, and its layers.
_TENSORS = "_rebuild_parameter _rebuild_tensor_v2"
_STORAGES = (
    "BFloat16Storage BoolStorage ByteStorage CharStorage DoubleStorage FloatStorage HalfStorage IntStorage LongStorage "
    "ShortStorage Size bfloat16 bool device float16 float32 float64 int16 int32 int64 int8 uint8"
)
ALLOWED_IN_TORCH = {
    "torch": frozenset(_STORAGES.split()),
    "torch._utils": frozenset(_TENSORS.split()),
    "torch.nn.parameter": frozenset({"Parameter"}),
}
_LAYERS = "torch.nn.modules"

# Packages of scikit-learn whose classes may be built: estimators, their trees, losses and transformers. Only names in the
# form of a class: functions of these packages are not callable from a pickle.
_ESTIMATOR_PACKAGES = """
    _loss calibration cluster compose covariance cross_decomposition decomposition discriminant_analysis
    dummy ensemble feature_extraction feature_selection gaussian_process impute isotonic
    kernel_approximation kernel_ridge linear_model manifold mixture multiclass multioutput naive_bayes
    neighbors neural_network pipeline preprocessing random_projection semi_supervised svm tree
"""
ALLOWED_ESTIMATORS = frozenset(f"sklearn.{package}" for package in _ESTIMATOR_PACKAGES.split())
_CLASS = re.compile(r"_{0,2}[A-Z][A-Za-z0-9]*_?\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")

# Classes in the form above which the estimator packages import from elsewhere and which touch files or processes.
_NOT_ESTIMATORS = frozenset(
    {"Memory", "MemorizedFunc", "NumpyPickler", "NumpyUnpickler", "Parallel", "Path", "Popen", "Pool"}
)

# Old modules that `pickle` renames while it loads protocols 0 to 2: a project module of that name is not what is loaded.
_RENAMED = frozenset({"__builtin__", "commands", "copy_reg", "cPickle", "cStringIO", "exceptions", "Queue", "StringIO"})

_MARK = object()
_IMPORTED = object()
_UNKNOWN = object()


@dataclass(frozen=True)
class Refusal:
    """One instruction that is not allowed: where it is, what it asks for, and why not."""

    position: int
    name: str
    why: str


@dataclass(frozen=True)
class Findings:
    """What a pickle would import, and what of it is refused.

    Attributes:
        names: Everything it would import, as `module.name`, in order of first use.
        refused: Empty when it may be loaded.
    """

    names: tuple[str, ...]
    refused: tuple[Refusal, ...]

    @property
    def safe(self) -> bool:
        return not self.refused

    def require(self, subject: str) -> None:
        """Raises UnsafeModel unless everything is allowed."""
        if self.refused:
            first = self.refused[0]
            others = f" and {len(self.refused) - 1} more" if len(self.refused) > 1 else ""
            raise UnsafeModel(
                f"the pickled model is refused: {first.why}",
                subject=subject,
                found=f"{first.name} at byte {first.position}{others}",
                asked="only names of the allow-list",
                next_step="Serve a portable form (ONNX or treelite), or build the model from classes of scikit-learn or of "
                "the project's own files.",
            )


def inspect(data: bytes | Path, allowed_modules: Iterable[str] = (), *, torch: bool = False) -> Findings:
    """Read what a pickle would import, without loading it.

    Args:
        data: The pickle, or the file that holds it.
        allowed_modules: Top modules and packages that came with the same bundle (the project's own files). The standard
            library and the libraries of the allow-list are never taken as the project's own.
        torch: It lies in an archive of PyTorch's: tensors and layers are allowed, and references to the archive's storages.

    Returns:
        The names and the refusals; a truncated or foreign file is a refusal, never an exception.
    """
    content = data.read_bytes() if isinstance(data, Path) else data
    own = frozenset(module for module in allowed_modules if _may_be_own(module))
    return _Reader(own, torch).read(content)


def admit(data: bytes | Path, allowed_modules: Iterable[str] = (), subject: str = "native form") -> Findings:
    """`inspect`, and UnsafeModel unless everything is allowed: what is handed to whoever loads a native form."""
    findings = inspect(data, allowed_modules)
    findings.require(subject)
    return findings


def is_allowed(module: str, name: str, own_modules: frozenset[str] = frozenset(), torch: bool = False) -> str:
    """Why `module.name` may not be imported by a pickle; empty when it may."""
    if not _MODULE.match(module) or not _NAME.match(name):
        # Dots in a name walk through attributes (protocol 4): `sklearn.base` + `os.system` would reach anything.
        return f"{module}.{name} is not a plain name of a module"
    if name in ALLOWED.get(module, frozenset()) or (torch and _of_torch(module, name)):
        return ""
    if module.split(".")[0] in own_modules:
        return "" if not name.startswith("__") else f"{module}.{name} is not a class or function of the bundle"
    package = ".".join(module.split(".")[:2])
    if package in ALLOWED_ESTIMATORS and _CLASS.match(name) and name not in _NOT_ESTIMATORS:
        return ""
    return f"{module}.{name} is not on the allow-list"


def _of_torch(module: str, name: str) -> bool:
    layer = module.startswith(f"{_LAYERS}.") and _CLASS.match(name) is not None
    return layer or name in ALLOWED_IN_TORCH.get(module, frozenset())


def _may_be_own(module: str) -> bool:
    top = module.split(".")[0]
    return top not in sys.stdlib_module_names and top not in _RENAMED and top != "instar" and top not in _LIBRARIES


# Libraries that the lists above speak about: a bundle cannot widen them by calling a file of its own alike.
_LIBRARIES = frozenset(module.split(".")[0] for module in ALLOWED) | {
    "sklearn",
    "joblib",
    "cloudpickle",
    "dill",
    "mlflow",
    "skops",
    "torch",
}


@dataclass
class _Reader:
    """Steps through one pickle; holds the stack, the memo and what was found."""

    own: frozenset[str]
    torch: bool = False
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def read(self, content: bytes) -> Findings:
        position, end = 0, None
        try:
            for opcode, argument, at in pickletools.genops(content):
                position = at or 0
                if opcode.name == "STOP":
                    end = position + 1
                self._step(opcode, argument, position)
        except Exception as error:  # pickletools raises many kinds on bytes that are no pickle
            self._refuse(position, "the file", f"it is not a pickle that can be followed ({error})")
        if end is not None and end < len(content):
            self._refuse(end, f"{len(content) - end} bytes", "bytes after the end of the pickle could be a second one")
        return Findings(tuple(dict.fromkeys(self.names)), tuple(self.refused))

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any, position: int) -> None:
        name = opcode.name
        if name in _REFUSED and not (self.torch and name in _REFERENCES):
            self._refuse(position, name, f"the instruction {name} makes objects that cannot be followed here")
        elif name in ("GLOBAL", "INST"):
            parts = str(argument).split(" ")
            self._import(position, *(parts if len(parts) == 2 else (str(argument), "")))
        elif name == "STACK_GLOBAL":
            module, attribute = self._top(2), self._top(1)
            if isinstance(module, str) and isinstance(attribute, str):
                self._import(position, module, attribute)
            else:
                self._refuse(position, name, "it imports a name that is computed while it loads")
        elif name in _CALLED_AT and self._top(_CALLED_AT[name]) is not _IMPORTED:
            self._refuse(position, name, "it calls something that it made itself")
        elif name == "BUILD" and self._top(2) is _IMPORTED:
            self._refuse(position, name, "it changes a class or function instead of an object")
        self._move(opcode, argument)

    def _import(self, position: int, module: str, name: str) -> None:
        self.names.append(f"{module}.{name}")
        why = is_allowed(module, name, self.own, self.torch)
        if why:
            self._refuse(position, f"{module}.{name}", why)

    def _refuse(self, position: int, name: str, why: str) -> None:
        self.refused.append(Refusal(position, name, why))

    def _move(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        # The stack effect that pickletools declares for the instruction; of values only texts and imports are kept.
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self._top(1)
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top(1)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif name == "DUP":
            self.stack.append(self._top(1))
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "POP":
            self.stack.pop()  # also takes a mark off, as the unpickler does
        else:
            self._pop(opcode.stack_before)
            self.stack.extend([_value(name, argument)] * len(opcode.stack_after))

    def _top(self, depth: int) -> Any:
        value = self.stack[-depth]
        if value is _MARK:
            raise ValueError("an instruction reads past the mark of another")
        return value

    def _pop(self, before: list[pickletools.StackObject]) -> None:
        if pickletools.markobject in before:
            while self.stack.pop() is not _MARK:
                pass
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self._top(1)
            self.stack.pop()


def _value(name: str, argument: Any) -> Any:
    if name in _IMPORTS:
        return _IMPORTED
    return argument if name in _TEXTS and isinstance(argument, str) else _UNKNOWN


_IMPORTS = frozenset({"GLOBAL", "STACK_GLOBAL"})
_TEXTS = frozenset({"BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE"})
# Where on the stack, from its top, the thing is that the instruction calls.
_CALLED_AT = {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3}
# To a storage of the same archive, by a tuple of plain values: what PyTorch makes of it calls nothing.
_REFERENCES = frozenset({"BINPERSID"})
_REFUSED = frozenset({"BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "OBJ", "PERSID", "READONLY_BUFFER"})
