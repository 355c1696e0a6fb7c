"""Who calls, from headers: tokens as gateways know them, revocation, expiry, rates, and whom a machine trusts."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from instar.core import credentials, tokens
from instar.core.errors import Damaged, NotAllowed, TooManyCalls, Unauthenticated
from instar.core.identity import Caller, Role, local_caller, local_user
from instar.core.settings import Settings, read_settings
from instar.core.store import Store
from instar.core.tokens import Wish
from instar.serve.access import callers, granting, keyring
from instar.serve.access.callers import Callers, Grant
from instar.serve.access.keyring import Headers, Keyring, Pass
from instar.serve.access.rates import Rates

HOST = (b"host", b"127.0.0.1:5000")


def grant(secret: str, **more: object) -> Grant:
    values = {"id": "tokn_1", "name": "web", "kind": "service", "roles": {"flights": ("caller",)}, **more}
    return Grant(hash=credentials.hash_of(secret), **values)  # type: ignore[arg-type]


def publish(folder: Path, *grants: Grant, number: int = 1, age: float = 0.0) -> None:
    callers.write_callers(folder, Callers(number, int((time.time() - age) * 1e6), grants))


def bearer(secret: str) -> Headers:
    return [HOST, (b"authorization", b"Bearer " + secret.encode())]


def test_a_token_is_its_caller_as_bearer_and_as_password(tmp_path: Path) -> None:
    secret = credentials.new_secret()
    publish(tmp_path, grant(secret, endpoints=("delay",)))
    ring = Keyring(tmp_path, Settings())
    basic = base64.b64encode(b"anybody:" + secret.encode())
    for headers in (bearer(secret), [HOST, (b"authorization", b"Basic " + basic)], bearer(secret)):
        held = ring.authenticate(headers)
        assert (held.caller.name, held.caller.kind) == ("web", "service")
        assert held.may_ask("delay", "flights")
        assert not held.may_ask("delay", "other")
        assert not held.may_ask("fraud", "flights")
        with pytest.raises(NotAllowed, match="web may not ask it"):
            held.require("fraud", "flights")


def test_what_is_no_token_or_nobodys_is_refused_without_being_told(tmp_path: Path) -> None:
    ring = Keyring(tmp_path, Settings())
    secret = credentials.new_secret()
    for header in (f"Bearer {secret}", f"Bearer {secret[:-1]}x", "Bearer ", "Digest x", f"Basic {secret}"):
        with pytest.raises(Unauthenticated) as refused:
            ring.authenticate([HOST, (b"authorization", header.encode())])
        assert secret[:-1] not in str(refused.value)


def test_a_revoked_token_is_refused_as_soon_as_the_file_says_so(tmp_path: Path) -> None:
    one, other = credentials.new_secret(), credentials.new_secret()
    publish(tmp_path, grant(one), grant(other, id="tokn_2"))
    ring = Keyring(tmp_path, Settings())
    kept = ring.authenticate(bearer(other))
    ring.authenticate(bearer(one))
    publish(tmp_path, grant(other, id="tokn_2"), number=2)
    ring.look()
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.authenticate(bearer(one))
    assert ring.authenticate(bearer(other)) is kept
    with pytest.raises(Unauthenticated):
        ring.by_id("tokn_1")


def test_a_file_that_the_server_did_not_write_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = credentials.new_secret()
    publish(tmp_path, grant(secret))
    ring = Keyring(tmp_path, Settings())
    file = callers.callers_file(tmp_path)
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(file.read_bytes().replace(b'"caller"', b'"admin"'))
    with pytest.raises(Damaged, match="signature"):
        callers.read_callers(tmp_path)
    ring.look()
    assert ring.authenticate(bearer(secret)).caller.roles == {"flights": frozenset({Role.CALLER})}
    assert "signature does not fit" in caplog.text


def test_an_expired_token_is_refused_though_it_was_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, now = credentials.new_secret(), time.time()
    publish(tmp_path, grant(secret, until=int((now + 60) * 1e6)))
    ring = Keyring(tmp_path, Settings())
    ring.authenticate(bearer(secret))
    monkeypatch.setattr(keyring.time, "time", lambda: now + 61)
    with pytest.raises(Unauthenticated, match="expired"):
        ring.authenticate(bearer(secret))


def test_old_word_about_tokens_is_believed_or_not_as_the_setting_says(tmp_path: Path) -> None:
    secret = credentials.new_secret()
    publish(tmp_path, grant(secret), age=1000)
    assert Keyring(tmp_path, Settings()).authenticate(bearer(secret))
    strict = Keyring(tmp_path, read_settings({"INSTAR_IDENTITY_MAX_STALE": "15m"}))
    with pytest.raises(Unauthenticated, match="more than 900 s old"):
        strict.authenticate(bearer(secret))
    publish(tmp_path, grant(secret), number=1)
    strict.look()
    assert strict.authenticate(bearer(secret))


def test_it_says_loudly_that_no_word_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path, grant(credentials.new_secret()), age=1000)
    ring = Keyring(tmp_path, Settings())
    ring.look()
    assert caplog.text.count("the control process is away; those known still hold") == 1


def test_without_a_token_one_is_the_owner_on_this_machine_alone(tmp_path: Path) -> None:
    ring = Keyring(tmp_path, Settings())
    assert ring.authenticate([HOST]).caller == local_caller()
    assert ring.authenticate([HOST, (b"origin", b"http://localhost:5000")]).caller.name == local_user().name
    for headers in ([], [(b"host", b"evil.example")], [HOST, (b"origin", b"https://evil.example")], [(b"host", b"[")]):
        with pytest.raises(NotAllowed):
            ring.authenticate(headers)
    for proxied in (b"x-forwarded-for", b"forwarded", b"via", b"x-real-ip"):
        with pytest.raises(Unauthenticated, match="through a proxy"):
            ring.authenticate([HOST, (proxied, b"1.2.3.4")])


@pytest.mark.parametrize("setting", [{"INSTAR_LOOPBACK": "token"}, {"INSTAR_HOSTS": "ml.example"}])
def test_a_strict_server_asks_everybody(tmp_path: Path, setting: dict[str, str]) -> None:
    ring = Keyring(tmp_path, read_settings(setting))
    with pytest.raises(Unauthenticated):
        ring.authenticate([HOST])


def test_named_hosts_are_the_only_ones(tmp_path: Path) -> None:
    secret = credentials.new_secret()
    publish(tmp_path, grant(secret))
    ring = Keyring(tmp_path, read_settings({"INSTAR_HOSTS": "ml.example, Other.example"}))
    token = (b"authorization", b"Bearer " + secret.encode())
    for host in (b"ml.example", b"other.example:443", b"localhost:5000"):
        assert ring.authenticate([(b"host", host), token])
    for _ in range(2):
        with pytest.raises(NotAllowed):
            ring.authenticate([(b"host", b"evil.example"), token])


def test_a_rate_lets_a_burst_through_and_then_the_rate(tmp_path: Path) -> None:
    held = Pass(Caller("web"), rate=10.0, rates=Rates(tmp_path / "rates"))
    for _ in range(10):
        held.enter(1000.0)
    with pytest.raises(TooManyCalls) as refused:
        held.enter(1000.0)
    assert refused.value.retry_after == 1
    held.enter(1000.1)
    with pytest.raises(TooManyCalls):
        held.enter(1000.1)


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "MOST_REMEMBERED", 3)
    secret = credentials.new_secret()
    publish(tmp_path, grant(secret))
    ring = Keyring(tmp_path, Settings())
    for number in range(20):
        header = b"Basic " + base64.b64encode(f"user{number}:{secret}".encode())
        ring.authenticate([HOST, (b"authorization", header)])
        assert len(ring._known) <= 3


def test_tokens_on_the_record_reach_the_keyring_and_numbers_count_changes(store: Store) -> None:
    token, secret = tokens.create(store, "flights", Wish("ada", {"flights": [Role.OPERATOR]}), local_caller())
    ring = Keyring(store.folder, Settings())
    number = granting.publish(store)
    ring.look()
    assert ring.authenticate(bearer(secret)).caller == token.caller()
    assert granting.publish(store) == number
    tokens.revoke(store, "flights", "ada", local_caller())
    assert granting.publish(store) == number + 1
    ring.look()
    with pytest.raises(Unauthenticated):
        ring.authenticate(bearer(secret))


def test_the_owners_token_is_a_file_of_the_owner(store: Store) -> None:
    granting.make_local_token(store.folder)
    granting.publish(store)
    place = credentials.local_token(store.folder)
    assert place.stat().st_mode & 0o777 == 0o600
    ring = Keyring(store.folder, read_settings({"INSTAR_LOOPBACK": "token"}))
    caller = ring.authenticate(bearer(credentials.of_file(place))).caller
    assert (caller.name, caller.roles) == (local_user().name, local_caller().roles)
