"""Addresses that prove themselves: parts of an upload and ranges of a file, which clients ask for without saying who they are.

A client's own calls name its user; what it sends to an address that it was given does not. So the address carries what it is for,
until when it holds, and a signature over both, made with a key that only the server has.

    query = sign(store, "part", upload, 3, until=moment)      # -> "until=1700000000&signature=…"
    prove(store, request.query, "part", upload, 3)            # raises unless it is that one, in time
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlencode

from instar.core.keys import signing_key
from instar.core.store import Store
from instar.interfaces.mlflow.errors import Refusal
from instar.interfaces.mlflow.frame import Call


def root(call: Call) -> str:
    """Where the caller finds the proxy of artifacts.

    A proxy that takes TLS off says so; the project is in the address, since no header will be.
    """
    scheme = "https" if call.request.headers.get("x-forwarded-proto") == "https" else "http"
    return (
        f"{scheme}://{call.request.headers['host']}/projects/{quote(call.project, safe='')}/api/2.0/mlflow-artifacts/"
    )


def address(call: Call, path: str, *what: object, until: datetime, **more: str) -> str:
    """A whole address below the proxy of artifacts, with the proof that it is for `what`."""
    proof = sign(call.store, *what, until=until)
    return f"{root(call)}{quote(path)}?{urlencode(more)}{'&' if more else ''}{proof}"


def sign(store: Store, *what: object, until: datetime) -> str:
    """The query string of an address for `what`."""
    moment = str(int(until.timestamp()))
    return urlencode({"until": moment, "signature": _signature(store, moment, what)})


def prove(store: Store, query: Mapping[str, str], *what: object) -> None:
    """Check the query string of an address.

    Raises:
        Refusal: It is not for that, or its time is over.
    """
    moment = query.get("until", "")
    wanted = _signature(store, moment, what)  # covers the moment: one that is none was never signed
    if not hmac.compare_digest(query.get("signature", "").encode(), wanted.encode()):
        raise Refusal("PERMISSION_DENIED", "The signature of this address does not fit: ask the server for a new one.")
    if int(moment) <= store.clock.wall().timestamp():
        raise Refusal("PERMISSION_DENIED", "The time of this address is over: ask the server for a new one.")


def _signature(store: Store, moment: str, what: tuple[object, ...]) -> str:
    text = repr((moment, *map(str, what)))
    return hmac.new(signing_key(store.folder, "addresses"), text.encode(), hashlib.sha256).hexdigest()
