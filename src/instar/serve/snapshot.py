"""Publishing routes: after a policy revision, the control side writes what gateways answer from, and waits for their word.

number = publish(store)
wait_acknowledged(store, number)       # every gateway that runs answers from it now
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from instar.core.errors import Damaged, InstarError, Unavailable
from instar.core.locks import one_at_a_time
from instar.core.settings import size_bytes
from instar.core.store import Store
from instar.plan import revisions
from instar.plan.contract import Serving
from instar.serve.log import segments
from instar.serve.traffic import leases, routing
from instar.serve.traffic.capacity import DEFAULT, Terms
from instar.serve.traffic.endpoint_signature import signature_of
from instar.serve.traffic.routes import (
    NATIVE,
    PORTABLE,
    SHADOWS,
    Ack,
    EndpointRoute,
    Snapshot,
    VersionRoute,
    bundle_folder,
    read_ack,
    read_snapshot,
    serve_folder,
    write_snapshot,
)

if TYPE_CHECKING:
    from instar.train.bundle import Manifest

log = logging.getLogger("instar.serve")


def publish(store: Store, *, whole: bool = False) -> int:
    """Write the current policies of all endpoints as a snapshot; bundles come first. Returns its number.

    Publishing what is published already makes no new number.

    Args:
        whole: Work out every route anew, and not only those whose policy is another: done when a server starts.

    Raises:
        NotFound: A bundle that a policy names is not in the store.
    """
    _build_environments(store, whole)
    with one_at_a_time(serve_folder(store.folder) / "routes.lock"):
        before = _before(store)
        agreed = _Agreed(store)
        routes = {}
        made_at = routing.microseconds(store.clock.wall())
        for revision in routing.endpoints(store):
            policy = revision.policy.at(made_at)
            name, terms = policy.endpoint, agreed.terms(policy)
            known = None if whole else before.endpoints.get(name)
            stays = known is not None and known.terms == terms and _holds(store, known, policy, revision.bundles)
            routes[name] = known if known is not None and stays else _endpoint(store, policy, revision.bundles, terms)
        if before.made_at and routes == before.endpoints:
            return before.number
        canaries = {name: route.policy.number for name, route in routes.items() if route.policy.canary is not None}
        leases.begin(store.folder, canaries, made_at)  # before the routes: a gateway reads both
        write_snapshot(store.folder, Snapshot(before.number + 1, made_at, routes))
        return before.number + 1


def _before(store: Store) -> Snapshot:
    try:
        return read_snapshot(store.folder)
    except Damaged as problem:  # the policies are on the record: the file is written again, with a number that is new
        log.error("%s", problem)
        acks = [read_ack(store.folder, boot) for boot in segments.alive_boots(store.folder / "calls")]
        return Snapshot(max([ack.number for ack in acks if ack is not None], default=0), 0, {})


def take_effect(store: Store, timeout: float = 30.0) -> Effect:
    """Publish, and wait until every gateway that runs answers from it: what a command does before it says "done".

    Raises:
        Unavailable: A gateway refused the routes, or did not answer in time; the policy is on the record all the same.
    """
    number = publish(store)
    return Effect(number, tuple(wait_acknowledged(store, number, timeout)))


@dataclass(frozen=True)
class Effect:
    """Routes that are in effect.

    Attributes:
        routes: Number of the snapshot.
        gateways: The word of each gateway that runs.
    """

    routes: int
    gateways: tuple[Ack, ...]

    @property
    def words(self) -> str:
        """Where it is in effect, for people."""
        if not self.gateways:
            return "no gateway runs: it takes effect when one starts"
        count = len(self.gateways)
        return f"in effect on {'the gateway that runs' if count == 1 else f'all {count} gateways'}"

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        gateways = [
            {"gateway": segments.boot_letters(ack.boot), "routes": ack.number, "failed": ack.failed}
            for ack in self.gateways
        ]
        return {"routes": self.routes, "gateways": gateways}


def wait_acknowledged(store: Store, number: int, timeout: float = 30.0) -> list[Ack]:
    """Wait until every gateway that runs answers from snapshot `number` or a later one.

    Args:
        timeout: Seconds.

    Returns:
        One acknowledgement a gateway; none when no gateway runs (it will read the snapshot when it starts).

    Raises:
        Unavailable: A gateway refused the snapshot, or did not answer in time.
    """
    deadline = time.monotonic() + timeout
    pause = 0.002
    while True:
        gateways = segments.alive_boots(store.folder / "calls")
        acks = {boot: read_ack(store.folder, boot) for boot in gateways}
        current = [ack for ack in acks.values() if ack is not None and ack.number >= number]
        for ack in current:
            if ack.error:
                raise Unavailable(
                    f"a gateway refused it: {ack.error}",
                    subject=f"route snapshot {ack.number}",
                    next_step="Set a policy whose versions can be loaded; the routes before it still answer.",
                )
        if len(current) == len(gateways):
            return current
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{len(gateways) - len(current)} of {len(gateways)} gateways did not acknowledge it in {timeout:g} s",
                subject=f"route snapshot {number}",
                next_step="Look at the server's log.",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def _endpoint(store: Store, policy: routing.Policy, digests: Mapping[int, str], terms: Terms) -> EndpointRoute:
    from instar.serve.trial import threshold_of  # both for models, of which a server that only tracks runs has none
    from instar.train import bundle as bundles

    last = policy.retiring.version if policy.retiring is not None else None
    manifests = {
        version: bundles.unpack(
            store.blobs, digests[version], _parent_made(bundle_folder(store.folder, digests[version]))
        )
        for version in (*policy.versions, *([last] if last is not None else []))
    }
    answering = {*policy.answering, last}  # who retires is kept where it answered
    held = {
        version: VersionRoute(
            version,
            digests[version],
            worker_of(digests[version], manifest, beside=version not in answering),
            tuple(one.name for one in (manifest.tensors.inputs if manifest.tensors else manifest.inputs)),
            threshold_of(store, digests[version], manifest),
            _environment_of(store, digests[version], manifest),
        )
        for version, manifest in manifests.items()
    }
    retiring = held.pop(last) if last is not None else None
    signature = signature_of(policy, {version: manifests[version] for version in held})
    return EndpointRoute(policy, signature, held, terms, retiring)


def _environment_of(store: Store, digest: str, manifest: Manifest) -> str:
    """The environment that a version runs in: ours, and loudly, where what the bundle says of it cannot be read."""
    from instar.serve.trial import restore_lock
    from instar.train import own_environment

    try:
        restore_lock(store, digest, manifest)
        return own_environment.name_of(store, manifest)
    except InstarError as problem:
        log.error("model %s runs in the environment of the server: %s", manifest.model, problem)
        return ""


def _build_environments(store: Store, whole: bool) -> None:
    """Have environments ready that versions of new routes need: before the routes are taken hold of, since it may take minutes.

    What cannot be built holds up no other endpoint: its version says why when it is loaded, which it is for proof at once.
    """
    from instar.train import bundle as bundles
    from instar.train import own_environment

    before = _before(store)
    made_at = routing.microseconds(store.clock.wall())
    for revision in routing.endpoints(store):
        policy = revision.policy.at(made_at)
        known = before.endpoints.get(policy.endpoint)
        if not whole and known is not None and _holds(store, known, policy, revision.bundles):
            continue
        for version in policy.versions:
            manifest = bundles.load_manifest(store.blobs, revision.bundles[version])
            subject = f"{policy.endpoint}@{version}"
            try:
                own_environment.prepare(store, manifest, tell=partial(log.warning, "%s: %s", subject))
            except InstarError as problem:
                log.error("%s: %s", subject, problem)


def _holds(store: Store, route: EndpointRoute, policy: routing.Policy, digests: Mapping[int, str]) -> bool:
    """Is a route as its policy has it, with its bundles in their place?"""
    if route.policy != policy or any(digests[one.version] != one.bundle for one in route.held):
        return False
    return all(bundle_folder(store.folder, one.bundle).exists() for one in route.held)


class _Agreed:
    """What contracts in effect say of the processes of endpoints."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._problems: dict[str, dict[str, Any]] = {}

    def terms(self, policy: routing.Policy) -> Terms:
        problems = self._problems.get(policy.project)
        if problems is None:
            with self._store.database.read() as tx:
                contract = revisions.current(tx, policy.project)
            problems = self._problems[policy.project] = {} if contract is None else contract.contract["problem"]
        section = problems.get(policy.endpoint, {}).get("serving")
        if section is None:
            return DEFAULT
        serving = msgspec.convert(section, Serving)
        return Terms(
            serving.reserve,
            None if serving.idle is None else serving.idle.total_seconds(),
            serving.most,
            None if serving.memory is None else size_bytes(serving.memory),
            serving.retry,
            None if serving.timeout is None else serving.timeout.total_seconds(),
        )


def worker_of(digest: str, manifest: Manifest, *, beside: bool = False) -> str:
    """Name of the worker process that a bundle runs in: one for all portable forms, its own for every other.

    Args:
        beside: Only the record hears it: then it shares no process with what answers.
    """
    if manifest.portable:
        return SHADOWS if beside else PORTABLE
    return f"{NATIVE}{digest.removeprefix('b3:')[:16]}"


def _parent_made(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder
