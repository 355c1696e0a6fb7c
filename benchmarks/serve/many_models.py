"""A thousand models on one machine: portable ones in one process under a memory budget, and some with a process of their own.

    python benchmarks/serve/many_models.py [--portable 1000] [--native 12] [--calls 6000] [--memory 256MiB]

Calls follow Zipf's law: few models are asked often, most hardly ever. Printed: latency of calls that met a loaded model and of
those that had to load it, how quick publishing and taking up one change among all routes is, memory, and what was let go.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from instar.app import open_store
from instar.core.store import Store
from instar.serve.processes import measuring
from instar.serve.publishing import snapshot
from instar.serve.root import costs
from instar.serve.root.process import ServerTree
from instar.serve.traffic import routes, routing
from instar.train import bundle, conversion, native

COLUMNS = 8


def main(arguments: list[str] | None = None) -> None:
    """Set up, call, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portable", type=int, default=1000)
    parser.add_argument("--native", type=int, default=12)
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--memory", default="256MiB", help="for all models together")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / ".instar", f"sqlite:///{folder}/instar.db")
        names = set_up(store, options.portable, options.native)
        publish(store)
        began = time.perf_counter()
        environment = {"INSTAR_MEMORY": options.memory, "INSTAR_CONTROLLERS": "off"}
        with ServerTree.start(store.folder, control=False, durable=False, environment=environment) as server:
            print(f"server answers after {time.perf_counter() - began:.2f} s, no model loaded")
            time.sleep(3.0)  # the warm process imports beside us
            ask(server, names, options.calls)
            change(store, server, names[0])
        costs.take_in(store)
        found = costs.costs(store)
        versions = [one for one in found if one.endpoint]
        loads = sum(one.starts for one in versions)
        print(f"{loads} loads of {len(versions)} models: {loads - len(versions)} came again after they had made room")
        store.database.close()


def set_up(store: Store, portable: int, own: int) -> list[str]:
    """Endpoints with a champion each; returns their names, in a mixed order."""
    random = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{n}": random.normal(size=400) for n in range(COLUMNS)})
    inputs = tuple(bundle.Column(name, "FP64") for name in frame.columns)
    environment = store.blobs.put(b"{}")
    names = []
    began = time.perf_counter()
    model = fitted(frame, 0)
    converted = conversion.convert(model, frame, "pandas")
    assert converted.portable is not None, converted.why
    for number in range(portable + own):
        model[-1].coef_ = random.normal(size=(1, COLUMNS))
        parts: dict[str, Any] = {"native": store.blobs.put(native.dump(model, "model")), "form": "pandas"}
        if number < portable:
            data = reweighted(converted.data, number)
            parts["portable"] = msgspec.structs.replace(converted.portable, file=store.blobs.put(data), size=len(data))
        name = f"{'portable' if number < portable else 'own'}-{number:04d}"
        manifest = bundle.Manifest(
            model=name, step="model", kind="model", recipe="model", parameters={}, target="late", inputs=inputs,
            outputs=bundle.OUTPUTS, threshold=0.5, run="run_b", fitted_on="tver_b", fitted_rows=400,
            environment=environment, **parts,
        )  # fmt: skip
        digest = bundle.pack(store.blobs, manifest)
        routing.set_policy(store, "bench", name, champion=1, bundles={1: digest}, cause="benchmark")
        names.append(name)
    print(f"{portable} portable models and {own} of their own made in {time.perf_counter() - began:.0f} s")
    return [str(name) for name in random.permutation(names)]


def fitted(frame: pl.DataFrame, seed: int) -> Any:
    """A small scikit-learn pipeline."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weights = np.random.default_rng(seed).normal(size=COLUMNS)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(frame.to_pandas(), frame.to_numpy() @ weights > 0)


def reweighted(graph: bytes, seed: int) -> bytes:
    """The same ONNX graph with other weights: another model, made without another conversion."""
    import onnx

    model = onnx.load_from_string(graph)
    random = np.random.default_rng(seed)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "coefficients":
                attribute.floats[:] = random.normal(size=len(attribute.floats))
    return bytes(model.SerializeToString())


def publish(store: Store) -> None:
    """Publish all routes, then a change of one."""
    for what in ("all routes", "the same again"):
        began = time.perf_counter()
        snapshot.publish(store)
        print(f"publishing {what}: {(time.perf_counter() - began) * 1000:.0f} ms")
    size = routes.routes_file(store.folder).stat().st_size
    reading = routes.Reading()
    spans = []
    for _ in range(2):
        began = time.process_time()
        routes.read_snapshot(store.folder, reading)
        spans.append((time.process_time() - began) * 1000)
    print(
        f"reading them ({size / 1e6:.1f} MB): {spans[0]:.1f} ms processor time, {spans[1]:.1f} ms when little changed"
    )


def ask(server: ServerTree, names: list[str], calls: int) -> None:
    """Call by Zipf's law, one after the other; a model's first call is a cold one."""
    random = np.random.default_rng(1)
    tensors = [{"name": f"x{n}", "shape": [1], "datatype": "FP64", "data": [0.5]} for n in range(COLUMNS)]
    body = json.dumps({"inputs": tensors})
    connection = http.client.HTTPConnection(server.state.host, server.port, timeout=60)

    def call(name: str) -> float:
        began = time.perf_counter()
        connection.request("POST", f"/v2/models/{name}/infer", body)
        reply = connection.getresponse()
        content = reply.read()
        assert reply.status == 200, content
        return (time.perf_counter() - began) * 1000

    seen: set[str] = set()
    spans: dict[str, list[float]] = {"portable, cold": [], "portable": [], "own process, cold": [], "own process": []}
    first = next(name for name in names if name.startswith("portable"))
    print(f"the very first call, of a portable model: {call(first):.1f} ms")
    seen.add(first)
    for name in [name for name in names if name.startswith("own")]:
        spans["own process, cold"].append(call(name))
        seen.add(name)
    for rank in np.minimum(random.zipf(1.2, calls), len(names)) - 1:
        name = names[rank]
        kind = "own process" if name.startswith("own") else "portable"
        spans[kind if name in seen else f"{kind}, cold"].append(call(name))
        seen.add(name)
    for kind, some in spans.items():
        if some:
            p50, p99 = np.percentile(some, [50, 99])
            print(f"{kind:20} {len(some):6} calls  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms")
    held: dict[str, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if str(server.log.parents[1]) in command or "instar.serve.worker.warm" in command:
            held[entry.name] = measuring.memory_bytes(int(entry.name))
    print(f"memory of the whole server: {sum(held.values()) / 1e6:.0f} MB in {len(held)} processes")


def change(store: Store, server: ServerTree, name: str) -> None:
    """Change one endpoint among all, and wait until gateways answer so."""
    revision = routing.current(store, name)
    assert revision is not None
    other = routing.current(store, "portable-0001")
    assert other is not None
    routing.set_policy(store, "bench", name, champion=2, bundles={2: other.bundles[1]}, cause="benchmark")
    began = time.perf_counter()
    number = snapshot.publish(store)
    published = time.perf_counter()
    snapshot.wait_acknowledged(store, number)
    done = time.perf_counter()
    print(
        f"one change of {len(msgspec.to_builtins(routes.read_snapshot(store.folder).endpoints))} routes: "
        f"published in {(published - began) * 1000:.0f} ms, answered from {(done - published) * 1000:.0f} ms later"
    )


if __name__ == "__main__":
    main()
