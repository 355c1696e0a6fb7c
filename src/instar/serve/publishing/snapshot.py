"""Publishing routes: after a policy revision, the control side writes what gateways answer from, and waits for their word.

number = publish(store)
wait_acknowledged(store, number)       # every gateway that runs answers from it now
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from instar.serve.publishing import waiting
from instar.serve.publishing.waiting import Waiting
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
from instar.train import environment_places

if TYPE_CHECKING:
    from instar.train.bundle import Manifest

log = logging.getLogger("instar.serve")


def publish(store: Store, *, whole: bool = False) -> int:
    """Write the current policies of all endpoints as a snapshot; bundles come first. Returns its number.

    Publishing what is published already makes no new number. Nothing is built here: an endpoint whose new versions wait for
    their environment answers as before until it is there (`building`), and a new one tells its calls so.

    Args:
        whole: Work out every route anew, and not only those whose policy is another: done when a server starts.

    Raises:
        NotFound: A bundle that a policy names is not in the store.
    """
    with one_at_a_time(serve_folder(store.folder) / "routes.lock"):
        before = _before(store)
        agreed = _Agreed(store)
        routes: dict[str, EndpointRoute] = {}
        waits: list[Waiting] = []
        known_waits = waiting.read(store.folder)
        made_at = routing.microseconds(store.clock.wall())
        for revision in routing.endpoints(store):
            policy = revision.policy.at(made_at)
            name, terms = policy.endpoint, agreed.terms(policy)
            old = before.endpoints.get(name)
            known = None if whole else old
            stays = known is not None and known.terms == terms and _holds(store, known, policy, revision.bundles)
            if known is not None and stays and all(one.endpoint != name for one in known_waits):
                routes[name] = known
                continue
            made = _endpoint(store, policy, revision.bundles, terms)
            found = _waiting(store, made, known_waits, whole=whole)
            lacking = any(
                one.version in policy.answering for one in found
            )  # what only the record hears holds up nothing
            held = lacking and old is not None and old.policy != policy and _answers(store, old)
            waits += [msgspec.structs.replace(one, held=held) for one in found]
            routes[name] = old if held and old is not None else _building(made, found)
        waiting.write(store.folder, waits)
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
    """Publish, and wait until every gateway that runs answers from it; what is being built is named, and not waited for.

    Args:
        timeout: Seconds.

    Raises:
        Unavailable: A gateway refused the routes, or did not answer in time; the policy is on the record all the same.
    """
    number = publish(store)
    building = tuple(one.name for one in waiting.read(store.folder) if not one.failed)
    return Effect(number, tuple(wait_acknowledged(store, number, timeout)), building)


@dataclass(frozen=True)
class Effect:
    """Routes that are in effect.

    Attributes:
        routes: Number of the snapshot.
        gateways: The word of each gateway that runs.
        building: Versions that take effect when their environment is built.
    """

    routes: int
    gateways: tuple[Ack, ...]
    building: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Where it is in effect, for people."""
        if self.building:
            names = ", ".join(self.building)
            return f"{self._where}; {names}: the environment is being built, and it answers when that is ready"
        return self._where

    @property
    def _where(self) -> str:
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
        return {"routes": self.routes, "gateways": gateways, "building": list(self.building)}


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
    from instar.serve.publishing.trial import (
        threshold_of,  # both for models, of which a server that only tracks runs has none
    )
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
            threads=manifest.resources.threads if manifest.resources else None,
            memory_bytes=manifest.resources.memory if manifest.resources else None,
        )
        for version, manifest in manifests.items()
    }
    retiring = held.pop(last) if last is not None else None
    signature = signature_of(policy, {version: manifests[version] for version in held})
    return EndpointRoute(policy, signature, held, terms, retiring)


def _environment_of(store: Store, digest: str, manifest: Manifest) -> str:
    """The environment that a version runs in: ours, and loudly, where what the bundle says of it cannot be read."""
    from instar.serve.publishing.trial import restore_lock
    from instar.train import own_environment

    try:
        restore_lock(store, digest, manifest)
        return own_environment.name_of(store, manifest)
    except InstarError as problem:
        log.error("model %s runs in the environment of the server: %s", manifest.model, problem)
        return ""


def _waiting(store: Store, route: EndpointRoute, known: Sequence[Waiting], *, whole: bool) -> list[Waiting]:
    """Versions of a route whose environment is not built. What could not be built is tried again for another policy."""
    found = []
    for one in route.held:
        if not one.environment or environment_places.is_built(store.folder, one.environment):
            continue
        name, number = route.policy.endpoint, route.policy.number
        before = [w for w in known if (w.endpoint, w.environment, w.policy) == (name, one.environment, number)]
        if whole or not before:
            environment_places.note_building(store.folder, one.environment)
        why = environment_places.why_not(store.folder, one.environment)
        found.append(Waiting(name, one.version, one.bundle, one.environment, number, failed=why))
    return found


def _building(route: EndpointRoute, waits: Sequence[Waiting]) -> EndpointRoute:
    """The route, whose versions that are being built say so."""
    names = {one.environment for one in waits if not one.failed}
    versions = {
        number: msgspec.structs.replace(one, building=one.environment in names)
        for number, one in route.versions.items()
    }
    return msgspec.structs.replace(route, versions=versions)


def _answers(store: Store, route: EndpointRoute) -> bool:
    """Can a route answer as it stands? One whose own champion waits, or whose bundle is gone, is not worth keeping."""
    champion = None if route.policy.champion is None else route.versions.get(route.policy.champion)
    return (
        champion is not None
        and bundle_folder(store.folder, champion.bundle).exists()
        and (not champion.environment or environment_places.is_built(store.folder, champion.environment))
    )


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
