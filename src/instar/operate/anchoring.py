"""Keeping the journal's head elsewhere, now and then: who rewrites the whole journal cannot rewrite that, too.

    one = head(store, "flights")
    keep_in_file(sign(one, Path("~/.ssh/audit_ed25519")), Path("/mnt/elsewhere/flights.anchors"))
    check(store, "flights", read(Path("/mnt/elsewhere/flights.anchors")))     # faults; empty when all hold

An anchor is one line of JSON: project, number and digest of an entry, and when it was taken. It is signed by `ssh-keygen` with an
Ed25519 key where one is named; else it says that it is not signed, and is worth what the place is worth where it is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from instar.core import journal
from instar.core.errors import BadInput, Conflict, NotFound, Unavailable
from instar.core.store import Store

NAMESPACE = "instar-anchor"  # a signature made for something else is not one of an anchor
SEND_SECONDS = 20.0


@dataclass(frozen=True)
class Anchor:
    """The head of a project's journal at a moment.

    Attributes:
        number, digest: Of the last entry.
        signature: An SSH signature over `signed_text`; null where it is not signed.
    """

    project: str
    number: int
    digest: str
    taken_at: str
    signature: str | None = None

    @property
    def signed_text(self) -> bytes:
        """What a signature is over."""
        return f"{self.project}\n{self.number}\n{self.digest}\n{self.taken_at}\n".encode()

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(vars(self), sort_keys=True)


def head(store: Store, project: str) -> Anchor:
    """The head as it is now, once the chain was found whole.

    Raises:
        NotFound: The project has no journal.
        Conflict: The chain does not hold: an anchor would vouch for it.
    """
    with store.database.read() as tx:
        found = journal.verify(tx, project)
    if not found.consistent:
        raise Conflict(
            "the journal does not hold, and is not anchored", subject=f"entry {found.broken_at}", found=found.reason,
            next_step="See what was touched: instar audit verify",
        )  # fmt: skip
    if not found.entries:
        raise NotFound("nothing was journalled yet", subject=f"project {project}")
    return Anchor(project, found.entries, found.head, store.clock.wall().isoformat())


def sign(one: Anchor, key: Path) -> Anchor:
    """The anchor, signed with an SSH key (made by `ssh-keygen -t ed25519 -f FILE`).

    Raises:
        NotFound: `ssh-keygen` is not on this machine, or the key is not there.
        BadInput: It cannot sign with that key.
    """
    if not key.exists():
        raise NotFound("the key is not there", subject=str(key), next_step=f"Make one: ssh-keygen -t ed25519 -f {key}")
    made = _ssh_keygen(["-Y", "sign", "-n", NAMESPACE, "-f", str(key)], one.signed_text)
    if made.returncode:
        raise BadInput("the key signs nothing", subject=str(key), found=made.stderr.decode(errors="replace").strip())
    return replace(one, signature=made.stdout.decode())


def keep_in_file(one: Anchor, path: Path) -> None:
    """Append the anchor to a file, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(one.line() + "\n")
        file.flush()
        os.fsync(file.fileno())


def keep_as_tag(one: Anchor, folder: Path) -> str:
    """Keep the anchor as an annotated tag of the git repository of a folder; pushing it is up to whoever owns that.

    Raises:
        BadInput: The folder is in no repository with a commit, or the tag is there with another text.
    """
    name = f"instar/{one.project}/{one.number}"
    made = subprocess.run(
        ["git", "-C", str(folder), "tag", "-a", name, "-m", one.line()], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise BadInput("git made no tag", subject=name, found=made.stderr.strip())
    return name


def send(one: Anchor, url: str) -> None:
    """Post the anchor as JSON.

    Raises:
        BadInput: That is no http or https address.
        Unavailable: Nobody there took it.
    """
    from urllib import request

    if urlsplit(url).scheme not in ("http", "https"):
        raise BadInput("that is no address to send to", found=url, asked="http or https")
    asked = request.Request(url, one.line().encode(), {"Content-Type": "application/json"})
    try:
        with request.urlopen(asked, timeout=SEND_SECONDS):
            pass
    except OSError as error:
        raise Unavailable("the anchor was not taken there", subject=url, found=str(error)) from error


def read(path: Path) -> list[Anchor]:
    """Anchors of a file, oldest first.

    Raises:
        NotFound, BadInput: There is no such file, or a line of it is no anchor.
    """
    if not path.exists():
        raise NotFound(
            "there is no such file of anchors", subject=str(path), next_step="Make one: instar audit anchor --file FILE"
        )
    found = []
    for number, line in enumerate(filter(str.strip, path.read_text("utf-8").splitlines()), 1):
        try:
            facts: Mapping[str, Any] = json.loads(line)
            one = Anchor(**facts)
            datetime.fromisoformat(one.taken_at)
        except (ValueError, TypeError) as error:
            raise BadInput("a line is no anchor", subject=f"{path}, line {number}", found=str(error)) from error
        found.append(one)
    return found


def check(store: Store, project: str, anchors: Sequence[Anchor], public_key: Path | None = None) -> list[str]:
    """Hold the journal to anchors that were kept elsewhere; what does not hold, in words.

    Args:
        public_key: Who signs anchors: each must bear that key's signature.
    """
    own = [one for one in anchors if one.project == project]
    if not own:
        return [f"none of the anchors is of project {project}"]
    faults = []
    with store.database.read() as tx:
        entries = {entry.number: entry.digest for entry in journal.entries(tx, project)}
    for one in own:
        if one.number not in entries:
            faults.append(f"anchor of {one.taken_at}: entry {one.number} is gone")
        elif entries[one.number] != one.digest:
            faults.append(f"anchor of {one.taken_at}: entry {one.number} is not the one that was anchored")
        if public_key is not None and (reason := _signature_fault(one, public_key)):
            faults.append(f"anchor of {one.taken_at}: {reason}")
    return faults


def _signature_fault(one: Anchor, public_key: Path) -> str:
    if one.signature is None:
        return "it is not signed"
    with tempfile.TemporaryDirectory() as folder:
        signature, allowed = Path(folder) / "anchor.sig", Path(folder) / "allowed"
        signature.write_text(one.signature)
        allowed.write_text(f"anchor {public_key.read_text().strip()}\n")
        options = ["-Y", "verify", "-n", NAMESPACE, "-I", "anchor", "-f", str(allowed), "-s", str(signature)]
        return "its signature does not hold" if _ssh_keygen(options, one.signed_text).returncode else ""


def _ssh_keygen(options: Sequence[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise NotFound(
            "ssh-keygen is not on this machine",
            next_step="Install OpenSSH's client, or anchor without a key: the anchor then says that it is not signed.",
        )
    return subprocess.run([program, *options], input=data, capture_output=True, check=False)
