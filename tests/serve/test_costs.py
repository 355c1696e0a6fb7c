"""What serving cost: sums that are honest, taken in once, and shown by version."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import httpx2
import msgspec
import pytest

from instar.app import open_store
from instar.core.settings import Settings
from instar.core.store import Store
from instar.serve.processes.children import Process
from instar.serve.processes.needs import Used
from instar.serve.root import accounts, costs
from instar.serve.root.accounts import VERSION, Account, Accounts, Line, usage_folder
from instar.serve.traffic import routing
from tests.serve import bundles, fakes
from tests.serve.conftest import acknowledged, start


def test_lines_sum_up_to_what_all_processes_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("instar.serve.root.accounts.time.monotonic", lambda: clock[0])
    cpu = {1: 0.0, 2: 0.0, 3: 0.0}
    monkeypatch.setattr("instar.serve.processes.measuring.cpu_seconds", lambda pid, programs: cpu[pid])
    books = Accounts(tmp_path)
    processes = [("portable", 1, 1000), ("native-a", 2, 500), ("gateway", 3, 200)]
    books.measured(processes)
    clock[0], cpu[1], cpu[2], cpu[3] = 110.0, 5.0, 3.0, 2.0
    books.measured(processes)
    second = 10**9
    books.used("portable", [Used("a", 1, "b3:1", 4, 40, 2 * second, 3 * second, 1500.0, 1)])
    books.used("portable", [Used("b", 1, "b3:2", 1, 1, second, second, 500.0, 1)])
    books.used("native-a", [Used("c", 2, "b3:3", 1, 1, second, second), Used("d", 2, "b3:3", 1, 1, second, second)])
    ended = Process(2)
    ended.code, ended.cpu_seconds = 0, 4.0
    books.ended("native-a", ended)
    books.write()
    (file,) = usage_folder(tmp_path).iterdir()
    lines = {(one.what, one.endpoint): one for one in msgspec.json.decode(file.read_bytes(), type=Account).lines}
    assert (lines[VERSION, "a"].cpu_seconds, lines[VERSION, "b"].cpu_seconds) == (2.0, 1.0)
    assert (lines["portable worker", ""].cpu_seconds, lines["portable worker", ""].byte_seconds) == (2.0, 8000.0)
    assert (lines[VERSION, "c"].cpu_seconds, lines[VERSION, "d"].cpu_seconds) == (2.0, 2.0)
    assert lines[VERSION, "c"].byte_seconds == 2500.0
    assert lines["gateway", ""].cpu_seconds == 2.0
    assert sum(one.cpu_seconds for one in lines.values()) == 5.0 + 4.0 + 2.0
    books.write()
    assert len(list(usage_folder(tmp_path).iterdir())) == 1  # nothing new, nothing written


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_each_account_is_taken_in_once(store: Store, database: str, request: pytest.FixtureRequest) -> None:
    if database == "postgres":
        store = open_store(store.folder.parent / "other", request.getfixturevalue("postgres_database"), store.clock)
    routing.set_policy(store, "flights", "delay", champion=1, bundles={1: "b3:" + "1" * 64}, cause="test")
    hour = int(store.clock.wall().timestamp()) // 3600 * 3_600_000_000
    folder = usage_folder(store.folder)
    folder.mkdir(parents=True)
    line = Line(VERSION, "delay", 1, "b3:1", 10, 100, 3600.0, 2 * 3600 * 1e9, 1.0, 1)
    data = msgspec.json.encode(Account(hour, hour + 1, [line, Line("gateway", cpu_seconds=1.0)]))
    for name in ("1.json", "2.json"):
        (folder / name).write_bytes(data)
    (folder / "3.json").write_bytes(b"{")
    assert costs.take_in(store) == 2
    (folder / "1.json").write_bytes(data)  # as after a crash between the record and the file's removal
    costs.take_in(store)
    assert [file.name for file in folder.iterdir()] == ["3.json"]
    prices = Settings(cpu_hour_price=0.5, gb_hour_price=0.25)
    delay, gateway = costs.costs(store, project="flights", prices=prices)
    assert (delay.endpoint, delay.calls, delay.rows, delay.starts) == ("delay", 20, 200, 2)
    assert (delay.cpu_seconds, delay.gb_hours, delay.money) == (7200.0, 4.0, 2 * 0.5 + 4 * 0.25)
    assert (gateway.what, gateway.endpoint, gateway.cpu_seconds) == ("gateway", "", 2.0)
    assert [one.what for one in costs.costs(store, project="other")] == ["gateway"]
    assert [one.endpoint for one in costs.costs(store, endpoint="delay")] == ["delay"]
    assert costs.costs(store, since=store.clock.wall() + timedelta(hours=2)) == []
    store.database.close()


def test_a_server_says_what_it_used_when_it_ends(store: Store) -> None:
    native = bundles.rule(store)
    fakes.route(store.folder, [fakes.version(store.folder, 1)])
    fakes.route(store.folder, [fakes.version(store.folder, 2, bias=0.5, native=True)], endpoint="other", champion=2)
    with start(store.folder) as server:
        acknowledged(store.folder, 2)
        for endpoint in ("delay", "delay", "other"):
            httpx2.post(f"{server.url}/v2/models/{endpoint}/infer", json=fakes.body(), timeout=30).raise_for_status()
    assert costs.take_in(store) == 1
    found = {(one.what, one.endpoint, one.version): one for one in costs.costs(store)}
    assert (found[VERSION, "delay", 1].calls, found[VERSION, "other", 2].calls) == (2, 1)
    assert (found[VERSION, "delay", 1].starts, found[VERSION, "other", 2].starts) == (1, 1)
    assert found[VERSION, "other", 2].cpu_seconds > 0
    assert found["gateway", "", 0].cpu_seconds > 0
    assert {"root", "portable worker", "warm process"} <= {one.what for one in found.values()}
    assert native
    assert accounts.GB == 1e9
    assert os.listdir(usage_folder(store.folder)) == []


def test_the_command_shows_money_where_prices_are_set(store: Store) -> None:
    from instar.interfaces.cli.cost import table

    line = costs.Cost(VERSION, "flights", "delay", 1, 10, 20, 3600.0, 2.0, 5.0, 1, 0.5)
    whole = costs.Cost("gateway", "", "", 0, 0, 0, 360.0, 0.1, 0.0, 0, 0.05)
    head, delay, gateway, total = table([line, whole], "EUR").splitlines()
    assert head.split()[-1] == "EUR"
    assert delay.split() == ["delay@1", "10", "20", "1", "5.00", "3,600", "2.000", "0.5000"]
    assert gateway.split() == ["(gateway)", "360", "0.100", "0.0500"]
    assert total.split() == ["in", "all", "3,960", "2.100", "0.5500"]
