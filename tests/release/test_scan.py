"""A pickle is read, never run: real gadgets are refused and leave no trace, ordinary models pass."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import UnsafeModel
from instar.release.scan import admit, inspect


def text(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """STACK_GLOBAL, the arguments, REDUCE."""
    return text(module) + text(name) + b"\x93(" + b"".join(arguments) + b"tR"


class Reduced:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def gadgets(command: str) -> dict[str, bytes]:
    """Pickles that run a shell command while they are loaded, by the trick that they use."""
    line = command.encode()
    logging_config = {
        "version": 1,
        "handlers": {"h": {"()": "os.system", "command": command}},
        "root": {"handlers": ["h"]},
    }
    return {
        "os.system": b"\x80\x04" + call("os", "system", text(command)) + b".",
        "as Python pickles it": pickle.dumps(Reduced(os.system, command)),
        "protocol 0": b"cos\nsystem\n(S'" + line + b"'\ntR.",
        "eval": b"\x80\x04" + call("builtins", "eval", text(f"__import__('os').system({command!r})")) + b".",
        "exec, old name": b"c__builtin__\nexec\n(S'__import__(\"os\").system(\"" + line + b"\")'\ntR.",
        "dictConfig": pickle.dumps(Reduced(__import__("logging.config").config.dictConfig, logging_config)),
        "partial": b"\x80\x04" + text("functools") + text("partial") + b"\x93(" + text("os") + text("system") + b"\x93"
        + text(command) + b"tR)R.",
        "nested pickle": pickle.dumps(Reduced(pickle.loads, pickle.dumps(Reduced(os.system, command)))),
        "dots in a name": b"\x80\x04" + call("uuid", "os.system", text(command)) + b".",
        "names from the memo": b"\x80\x04" + text("system") + b"\x94" + text("os") + b"\x9400h\x01h\x00\x93("
        + text(command) + b"tR.",
        "name made by a call": b"\x80\x04" + call("builtins", "str", text("os")) + text("system") + b"\x93("
        + text(command) + b"tR.",
        "INST": b"(S'" + line + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + line + b"'\no.",
        "subprocess": pickle.dumps(Reduced(subprocess.check_output, ["sh", "-c", command])),
        "getattr": b"\x80\x04" + text("builtins") + text("getattr") + b"\x93(" + call("builtins", "__import__", text("os"))
        + text("system") + b"tR(" + text(command) + b"tR.",
        "deep in a list": pickle.dumps({"model": [1, {"x": Reduced(os.system, command)}]}),
        "a class changed": b"\x80\x04" + text("collections") + text("OrderedDict") + b"\x93N}" + text("x")
        + call("os", "system", text(command)) + b"s\x86b.",
        "in an array": pickle.dumps(np.array([Reduced(os.system, command)], dtype=object)),
    }  # fmt: skip


NAMES = sorted(gadgets("true"))


@pytest.mark.parametrize("name", NAMES)
def test_gadgets_are_refused_and_never_run(name: str, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    data = gadgets(f"touch {trace}")[name]
    findings = inspect(data)
    assert not findings.safe
    assert not trace.exists()
    with pytest.raises(UnsafeModel) as caught:
        admit(data, subject="bundle b3:bad")
    assert "bundle b3:bad" in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_gadgets_are_real(name: str, tmp_path: Path) -> None:
    # Otherwise the test above would prove nothing.
    trace, file = tmp_path / "ran", tmp_path / "gadget"
    file.write_bytes(gadgets(f"touch {trace}")[name])
    program = f"import pickle\ntry:\n    pickle.load(open({str(file)!r}, 'rb'))\nexcept Exception:\n    pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert trace.exists()


def test_a_refusal_names_what_and_where() -> None:
    findings = inspect(b"\x80\x04" + call("os", "system", text("true")) + b".")
    assert findings.names == ("os.system",)
    assert [(found.name, found.position) for found in findings.refused] == [("os.system", 14)]
    with pytest.raises(UnsafeModel, match=r"os\.system is not on the allow-list"):
        findings.require("model")


def test_every_name_is_reported_not_only_the_first() -> None:
    data = pickle.dumps([Reduced(os.system, "a"), Reduced(os.getenv, "b")])
    assert [found.name for found in inspect(data).refused] == [f"{os.system.__module__}.system", "os.getenv"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"no pickle",
        b"\x80\x04N",
        pickle.dumps([1, 2, 3])[:-1],
        b"\x80\x04h\x05.",  # reads a memo that was never written
        b"\x80\x04(\x940.",  # memoises a mark
        b"\x80\x040.",  # pops from nothing
        b"\x80\x04\x85.",
    ],
    ids=["empty", "header only", "text", "no stop", "cut", "memo", "mark", "underflow", "tuple of nothing"],
)
def test_what_cannot_be_followed_is_refused(data: bytes) -> None:
    assert not inspect(data).safe


def test_a_second_pickle_behind_the_first_is_refused() -> None:
    assert not inspect(pickle.dumps(1) + pickle.dumps(Reduced(os.system, "true"))).safe


def test_an_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(1))
    assert not inspect(file).safe


@pytest.mark.parametrize(
    "data",
    [b"\x80\x02\x82\x01.", b"Pid\n.", b"\x80\x02Nq\x00Q.", b"\x80\x05\x97."],
    ids=["extension registry", "persistent id", "binary persistent id", "out-of-band buffer"],
)
def test_objects_from_outside_are_refused(data: bytes) -> None:
    assert not inspect(data).safe


def test_an_object_that_was_made_cannot_be_called() -> None:
    made = call("collections", "OrderedDict")
    assert inspect(b"\x80\x04" + made + b".").safe
    assert "calls something that it made itself" in inspect(b"\x80\x04" + made + b")R.").refused[0].why


def test_values_of_the_standard_library_and_numpy_pass() -> None:
    values = [
        {"a": [1, 2.5, None, True, "x", b"y"], "b": {1, 2}, "c": frozenset({3}), "d": (1,), "e": slice(1, 2)},
        collections.OrderedDict(a=1),
        collections.defaultdict(list, {"a": [1]}),
        datetime(2020, 1, 1, tzinfo=UTC),
        np.arange(6.0).reshape(2, 3),
        np.array(["a", None], dtype=object),
        np.float64(1.5),
        np.random.default_rng(0),
        pl.DataFrame({"a": [1, 2], "b": ["x", None]}),
    ]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert inspect(pickle.dumps(values, protocol=protocol)).refused == ()


def test_a_lazy_frame_may_hold_functions_and_is_refused() -> None:
    assert not inspect(pickle.dumps(pl.LazyFrame({"a": [1]}))).safe


class _Recorder(pickle.Unpickler):
    """Loads, and says what it imported."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.names.append(f"{module}.{name}")
        return super().find_class(module, name)


def test_models_of_scikit_learn_pass_and_every_import_was_seen() -> None:
    pytest.importorskip("sklearn")
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    random = np.random.default_rng(0)
    rows = np.column_stack([random.normal(size=80), random.integers(0, 3, 80)])
    truth = rows[:, 0] > 0
    columns = ColumnTransformer([("code", OrdinalEncoder(), [1])], remainder="passthrough")
    models = [
        make_pipeline(columns, HistGradientBoostingClassifier(max_iter=3)),
        make_pipeline(columns, RandomForestClassifier(n_estimators=3)),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
    ]
    for model in models:
        data = pickle.dumps(model.fit(rows, truth), protocol=5)
        findings = inspect(data)
        assert findings.refused == ()
        loading = _Recorder(data)
        loading.load()
        assert set(loading.names) == set(findings.names)


def test_functions_and_foreign_classes_of_scikit_learn_are_refused() -> None:
    for module, name in [
        ("sklearn.datasets", "load_files"),
        ("sklearn.datasets._base", "Bunch"),
        ("sklearn.pipeline", "make_pipeline"),
        ("sklearn.utils.parallel", "Parallel"),
        ("sklearn.ensemble._base", "Parallel"),
        ("sklearn", "Path"),
        ("sklearn.pipeline.Pipeline", "__init__"),
    ]:
        assert not inspect(b"\x80\x04" + text(module) + text(name) + b"\x93.").safe, (module, name)


def test_the_bundles_own_modules_pass_only_with_the_bundle() -> None:
    data = b"\x80\x04" + call("pipeline", "LateShare") + b"."
    assert not inspect(data).safe
    assert inspect(data, ["pipeline"]).safe
    assert inspect(b"\x80\x04" + call("steps.rules", "Rule") + b".", ["steps"]).safe


def test_a_bundle_cannot_pass_off_a_library_as_its_own() -> None:
    for module, name in [
        ("os", "system"),
        ("subprocess", "Popen"),
        ("commands", "getoutput"),
        ("numpy", "load"),
        ("joblib", "load"),
    ]:
        data = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."
        assert not inspect(data, [module]).safe, module
    assert not inspect(b"\x80\x04" + text("pipeline") + text("os.system") + b"\x93.", ["pipeline"]).safe
    assert not inspect(b"\x80\x04" + text("pipeline") + text("__builtins__") + b"\x93.", ["pipeline"]).safe


def test_a_file_is_read_like_bytes(tmp_path: Path) -> None:
    file = tmp_path / "native.pickle"
    file.write_bytes(pickle.dumps({"a": 1}))
    assert admit(file).safe


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_always_passes(value: object, protocol: int) -> None:
    assert inspect(pickle.dumps(value, protocol=protocol)).refused == ()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    inspect(data)
    inspect(b"\x80\x04" + data + b".")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 255))
def test_a_gadget_with_a_flipped_byte_is_refused_or_harmless(position: int, value: int) -> None:
    # Whatever the flip makes of it: if the scan admits it, everything that loading imports is on the scan's list.
    data = bytearray(pickle.dumps([np.arange(3), {"x": Reduced(os.getenv, "HOME")}, "text"]))
    data[position % len(data)] = value
    findings = inspect(bytes(data))
    if findings.safe:
        loading = _Recorder(bytes(data))
        try:
            loading.load()
        except Exception:
            assert set(loading.names) <= set(findings.names)
        else:
            assert set(loading.names) == set(findings.names)


def test_struct_lengths_beyond_the_file_are_refused() -> None:
    assert not inspect(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.").safe
