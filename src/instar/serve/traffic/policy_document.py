"""A traffic policy as people write, read and compare it: a small TOML or JSON document, when one is shown or set.

champion = 3
sticky = "key"                     # or "caller", or "header:x-session"

[[arms]]                           # what arms leave of 100 is the champion's
name = "b"
version = 5
weight = 10

[[rules]]                          # the first that fits holds
name = "beta"
when = [{ header = "x-beta", is = "yes" }]
version = 5

[[shadows]]
version = 4
share = 25
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from typing import Any

import msgspec

from instar.core.errors import BadInput
from instar.serve.traffic.policy import KEY, Arm, Canary, Policy, Rule, Shadow

LIMIT_BYTES = 256 * 1024

_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


class PolicyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parts of a policy that somebody decides; number, project and what retires follow."""

    champion: int | None = None
    sticky: str = KEY
    canary: Canary | None = None
    arms: tuple[Arm, ...] = ()
    rules: tuple[Rule, ...] = ()
    shadows: tuple[Shadow, ...] = ()

    def draft(self, project: str, endpoint: str) -> Policy:
        """The policy without a number."""
        return Policy(
            endpoint, project, 0, self.champion, self.canary, self.shadows, self.arms, self.sticky, self.rules
        )


def document_of(policy: Policy) -> PolicyDocument:
    """What of a policy somebody decided."""
    return PolicyDocument(policy.champion, policy.sticky, policy.canary, policy.arms, policy.rules, policy.shadows)


def plain(policy: Policy) -> dict[str, Any]:
    """The document as JSON values."""
    made: dict[str, Any] = msgspec.to_builtins(document_of(policy))
    return made


def read(text: bytes, subject: str) -> PolicyDocument:
    """A document in JSON, when it begins with a brace, or in TOML.

    Raises:
        BadInput: It is neither, or it says what a policy has no place for; the message names the path.
    """
    if len(text) > LIMIT_BYTES:
        raise BadInput("the policy is too long", subject=subject, found=f"{len(text)} bytes", asked=f"{LIMIT_BYTES}")
    try:
        if text.lstrip()[:1] == b"{":
            found = json.loads(text)
        else:
            found = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise BadInput("the policy cannot be read", subject=subject, found=str(error), asked="TOML or JSON") from None
    try:
        return msgspec.convert(found, PolicyDocument)
    except msgspec.ValidationError as error:
        raise BadInput(
            f"the policy is wrong: {error}{_nearest(str(error))}", subject=subject,
            next_step="`instar route show ENDPOINT` prints one that is right.",
        ) from None  # fmt: skip


def toml(policy: Policy) -> str:
    """The document in TOML; `read` takes it back."""
    made = plain(policy)
    lines = [f"{name} = {_value(made[name])}" for name in ("champion", "sticky") if made[name] is not None]
    if made["canary"] is not None:
        lines += ["", "[canary]", *_fields(made["canary"])]
    for part in ("arms", "rules", "shadows"):
        for one in made[part]:
            lines += ["", f"[[{part}]]", *_fields(one)]
    return "\n".join(lines) + "\n"


def difference(before: Policy | None, after: Policy) -> str:
    """What a change does to the document, line by line as in a unified diff; empty when it does nothing."""
    old = toml(before).splitlines() if before is not None else []
    new = toml(after).splitlines()
    lines = list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]  # without the two names of files
    return "\n".join(line for line in lines if not line.startswith("@@"))


def _fields(values: dict[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # a basic string of TOML escapes as JSON's do
    if isinstance(value, float):
        return repr(value).removesuffix(".0") if "e" not in repr(value) else repr(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(one)}" for name, one in value.items() if one is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return str(value)


def _nearest(message: str) -> str:
    unknown = _UNKNOWN.search(message)
    if unknown is None:
        return ""
    names = {name for kind in (PolicyDocument, Canary, Arm, Rule, Shadow) for name in kind.__struct_fields__}
    known = names | {"header", "tag", "caller", "is", "prefix"}
    close = difflib.get_close_matches(unknown[1], known - {unknown[1]}, n=1)  # it may be known, in another place
    return f"; did you mean `{close[0]}`?" if close else ""
