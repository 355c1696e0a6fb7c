"""Where a webhook may be sent: public addresses over https, unless the server's owner says otherwise.

A server that calls any address on request is a way into the network that it stands in: to the metadata service of a
cloud, to a database without a password. So an address is resolved, every answer must be public, and the connection is made
to the very address that was looked at; a name that means something else a moment later gains nothing.

`INSTAR_WEBHOOK_TARGETS=any` allows http and addresses of private networks and of this machine, for tests and closed
networks.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from instar.core.errors import BadInput, NotAllowed, Unavailable
from instar.core.settings import read_settings

SETTING = "INSTAR_WEBHOOK_TARGETS"
LONGEST_URL = 2048


@dataclass(frozen=True)
class Target:
    """An address that may be called.

    Attributes:
        path: With its query, as it is sent.
    """

    secure: bool
    host: str
    port: int
    path: str


def check(url: str) -> Target:
    """The target that a URL names.

    Raises:
        BadInput: It is no URL of http or https.
        NotAllowed: This server does not call it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"that is no address: {error}", subject="webhook", found=url[:100]) from None
    plain = not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url) or len(url) > LONGEST_URL
    if parts.scheme not in ("http", "https") or not parts.hostname or plain:
        raise BadInput(
            "that is no address to send to", subject="webhook", found=url[:100], asked="https://HOST/PATH, in ASCII"
        )
    if parts.username or parts.password:
        raise BadInput(
            "an address may not hold a password", subject="webhook", found=f"…@{parts.hostname}",
            next_step="Give the webhook a secret: it signs what is sent.",
        )  # fmt: skip
    secure = parts.scheme == "https"
    if not secure and not _anywhere():
        raise NotAllowed(
            "what is sent could be read on the way", subject="webhook", found=f"http://{parts.hostname}", asked="https",
            next_step=f"{SETTING}=any allows http, for tests and closed networks.",
        )  # fmt: skip
    host = parts.hostname
    if _literal(host):
        _check_public(host, host)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, host, port or (443 if secure else 80), path)


def connect(target: Target, timeout: float) -> http.client.HTTPConnection:
    """A connection to a target, made to an address that was looked at.

    Args:
        timeout: Seconds for each step of the exchange.

    Raises:
        NotAllowed: The name leads to an address that this server does not call.
        Unavailable: The name leads nowhere.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"its name leads nowhere: {error}", subject=f"webhook at {target.host}") from None
    for _, _, _, _, address in found:
        _check_public(target.host, str(address[0]))
    connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout)
    if target.secure:
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=timeout, context=context)
    raw = socket.create_connection((str(found[0][4][0]), target.port), timeout=timeout)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock = context.wrap_socket(raw, server_hostname=target.host) if target.secure else raw
    return connection


def _check_public(host: str, address: str) -> None:
    if _anywhere():
        return
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
    if not (ip.is_global and inner.is_global) or ip.is_multicast:
        raise NotAllowed(
            "it leads into a private network or to this machine", subject="webhook",
            found=host if host == address else f"{host}, which is {address}", asked="a public address",
            next_step=f"{SETTING}=any allows it, for tests and closed networks.",
        )  # fmt: skip


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _anywhere() -> bool:
    return read_settings().webhook_targets == "any"
