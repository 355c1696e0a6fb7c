"""Settings from the environment, read once when a program starts.

| variable | meaning |
| --- | --- |
| `INSTAR_STORE` | the store's folder; default `.instar` beside `instar.toml` |
| `INSTAR_DATABASE` | URL of the metadata database; default a SQLite file in the store |
| `INSTAR_URL` | address of a running server which `instar predict` and the SDK talk to |
| `INSTAR_WEBHOOK_TARGETS` | `any`: webhooks may go to http and to private addresses; default `public` |
| `INSTAR_UPLOAD_LIMIT` | largest body of an upload, in bytes or as in `64GiB`, which is the default |
| `INSTAR_CONNECTIONS` | requests that a gateway hands to the control process at once; default 64, more wait |
| `INSTAR_MEMORY` | memory for all models of a server together, as in `8GiB`; default half of the machine's |
| `INSTAR_WORKER_MEMORY` | memory of one process of a version of its own, beyond which it is replaced; default no limit |
| `INSTAR_MOST_CALLS` | calls in flight in one gateway; one endpoint may have half of them; default 8192 |
| `INSTAR_QUEUE_TIMEOUT` | seconds that a call may have to wait whose caller does not say how long it has; default 10 |
| `INSTAR_RECORD_FAILURE` | `answer`: calls are answered though their record cannot be kept, and counted; default `stop` |
| `INSTAR_MOST_CONNECTIONS` | open connections of one gateway; default 10000 |
| `INSTAR_MOST_ARRIVING` | memory of all bodies that are still coming to one gateway, as in `256MiB`, the default |
| `INSTAR_HEAD_TIMEOUT`, `INSTAR_BODY_TIMEOUT` | seconds for a request's head, and for its body; default 10 |
| `INSTAR_KEEP_TENSORS` | largest tensors of a call that are recorded whole, each way; default `64KiB`, larger ones are sampled |
| `INSTAR_ONNX_THREADS` | threads of a session of ONNX Runtime; default 1 |
| `INSTAR_MODEL_THREADS` | threads of numeric libraries in a process of models; default `OMP_NUM_THREADS`, else 1 |
| `INSTAR_IDLE` | seconds without a call after which a version's own process ends; default 900 |
| `INSTAR_HANG` | seconds after which a process that answers nothing while calls wait is killed; default 20 |
| `INSTAR_CALL_LIMIT` | seconds after which a call is given up whose caller does not say how long it has; default 30 |
| `INSTAR_FENCE` | `off`: worker processes may read and write what the server may |
| `INSTAR_FENCE_READ` | further folders that worker processes may read, separated as in `PATH` |
| `INSTAR_FORK` | `off`: worker processes are started afresh, not forked from a warm one |
| `INSTAR_CPU_HOUR_PRICE`, `INSTAR_GB_HOUR_PRICE`, `INSTAR_CURRENCY` | what `instar cost` multiplies by; default no prices |
| `INSTAR_LOOPBACK` | `token`: callers on this machine prove who they are, too; default `trust` |
| `INSTAR_TLS_CERT`, `INSTAR_TLS_KEY` | PEM files by which a server speaks TLS, as `--tls-cert` and `--tls-key` |
| `INSTAR_HOSTS` | names under which others reach the server, with commas; then everybody needs a token |
| `INSTAR_IDENTITY_MAX_STALE` | time without word about tokens after which they are refused, as in `15m`; default: none |
| `INSTAR_CONTROLLERS` | `off`: the server watches, retrains and rolls out nothing by itself |
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from instar.core.errors import BadInput

STORE_FOLDER = ".instar"
DEFAULT_PROJECT = "default"  # of a store that is used without a contract
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SIZES = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}


@dataclass(frozen=True)
class Settings:
    """Where things are kept, and whom to ask."""

    store: Path | None = None
    database: str | None = None
    url: str | None = None
    controllers: bool = True
    upload_limit_bytes: int = 64 * 1024**3
    connections: int = 64
    webhook_targets: str = "public"
    keep_tensors_bytes: int = 64 * 1024
    memory_bytes: int | None = None
    worker_memory_bytes: int | None = None
    idle_seconds: float = 900.0
    hang_seconds: float = 20.0
    call_seconds: float = 30.0
    most_calls: int = 8192
    queue_seconds: float = 10.0
    record_failure: str = "stop"
    most_connections: int = 10_000
    arriving_bytes: int = 256 * 1024**2
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    cpu_hour_price: float | None = None
    gb_hour_price: float | None = None
    currency: str = "EUR"
    loopback: str = "trust"
    hosts: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    identity_max_stale_seconds: int | None = None

    @property
    def trusting(self) -> bool:
        """Whether who calls from this machine without a token is the owner of the store."""
        return self.loopback == "trust" and not self.hosts

    @property
    def answer_seconds(self) -> float:
        """For a model in a process beside its worker to answer: before the worker itself, which waits, counts as hanging."""
        return min(self.call_seconds, 0.75 * self.hang_seconds)

    def store_folder(self, project_root: Path) -> Path:
        """The store's folder for a project at `project_root`."""
        return (self.store or project_root / STORE_FOLDER).absolute()

    def database_url(self, folder: Path) -> str:
        """The metadata database of the store in `folder`."""
        return self.database or f"sqlite:///{folder / 'instar.db'}"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environment`, by default the process's own."""
    values = os.environ if environment is None else environment
    store = values.get("INSTAR_STORE")
    defaults = Settings()
    return Settings(
        store=Path(store).expanduser() if store else None,
        database=values.get("INSTAR_DATABASE") or None,
        url=values.get("INSTAR_URL") or None,
        webhook_targets=values.get("INSTAR_WEBHOOK_TARGETS", "public").lower(),
        loopback=_one_of(values, "INSTAR_LOOPBACK", ("trust", "token")),
        hosts=tuple(host.strip().lower() for host in values.get("INSTAR_HOSTS", "").split(",") if host.strip()),
        tls_certificate=_file(values, "INSTAR_TLS_CERT"),
        tls_key=_file(values, "INSTAR_TLS_KEY"),
        identity_max_stale_seconds=_seconds(values, "INSTAR_IDENTITY_MAX_STALE"),
        controllers=values.get("INSTAR_CONTROLLERS", "on").lower() not in ("off", "0", "no", "false"),
        upload_limit_bytes=_number(values, "INSTAR_UPLOAD_LIMIT", defaults.upload_limit_bytes, SIZES),
        keep_tensors_bytes=_number(values, "INSTAR_KEEP_TENSORS", defaults.keep_tensors_bytes, SIZES),
        connections=_number(values, "INSTAR_CONNECTIONS", defaults.connections),
        memory_bytes=_number(values, "INSTAR_MEMORY", 0, SIZES) or None,
        worker_memory_bytes=_number(values, "INSTAR_WORKER_MEMORY", 0, SIZES) or None,
        idle_seconds=_decimal(values, "INSTAR_IDLE") or defaults.idle_seconds,
        hang_seconds=_decimal(values, "INSTAR_HANG") or defaults.hang_seconds,
        call_seconds=_decimal(values, "INSTAR_CALL_LIMIT") or defaults.call_seconds,
        most_calls=_number(values, "INSTAR_MOST_CALLS", defaults.most_calls),
        queue_seconds=_decimal(values, "INSTAR_QUEUE_TIMEOUT") or defaults.queue_seconds,
        record_failure=_one_of(values, "INSTAR_RECORD_FAILURE", ("stop", "answer")),
        most_connections=_number(values, "INSTAR_MOST_CONNECTIONS", defaults.most_connections),
        arriving_bytes=_number(values, "INSTAR_MOST_ARRIVING", defaults.arriving_bytes, SIZES),
        head_seconds=_decimal(values, "INSTAR_HEAD_TIMEOUT") or defaults.head_seconds,
        body_seconds=_decimal(values, "INSTAR_BODY_TIMEOUT") or defaults.body_seconds,
        cpu_hour_price=_decimal(values, "INSTAR_CPU_HOUR_PRICE"),
        gb_hour_price=_decimal(values, "INSTAR_GB_HOUR_PRICE"),
        currency=values.get("INSTAR_CURRENCY", "").strip() or defaults.currency,
    )


def size_bytes(text: str) -> int:
    """Bytes that a size such as `"2GiB"` or `"4096"` means.

    Raises:
        ValueError: It is none.
    """
    return _read_number(text, SIZES)


def _file(values: Mapping[str, str], name: str) -> Path | None:
    text = values.get(name, "").strip()
    return Path(text).expanduser().absolute() if text else None


def _number(values: Mapping[str, str], name: str, default: int, units: Mapping[str, int] | None = None) -> int:
    text = values.get(name, "").strip()
    if not text:
        return default
    try:
        return _read_number(text, units or {})
    except ValueError:
        asked = "a whole number from 1 on" + (f", or one with {', '.join(units)}" if units else "")
        raise BadInput("that setting cannot be read", subject=name, found=repr(text), asked=asked) from None


def _read_number(text: str, units: Mapping[str, int]) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,18}) ?([A-Za-z]*)", text.strip())
    if found is None or (found[2] and found[2] not in units):
        raise ValueError(text)
    return int(found[1]) * units.get(found[2], 1)


def _seconds(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "").strip()
    if not text:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8}) ?([smhd]?)", text)
    if found is None:
        raise BadInput("that setting cannot be read", subject=name, found=repr(text), asked="a time, as in 30s or 15m")
    return int(found[1]) * UNITS[found[2] or "s"]


def _decimal(values: Mapping[str, str], name: str) -> float | None:
    text = values.get(name, "").strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text) is None or not float(text):
        raise BadInput("that setting cannot be read", subject=name, found=repr(text), asked="a number above 0")
    return float(text)


def _one_of(values: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    text = values.get(name, "").strip().lower() or allowed[0]
    if text not in allowed:
        raise BadInput("that setting cannot be read", subject=name, found=repr(text), asked=" or ".join(allowed))
    return text
