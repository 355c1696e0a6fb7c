"""What an endpoint asks of its callers, from the versions that a policy names: when it is set and when routes are published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from instar.core.errors import Blocked
from instar.core.limits import Limits
from instar.serve.protocol.signature import InputColumn, Signature, TensorSpec
from instar.serve.traffic.policy import Policy

if TYPE_CHECKING:
    from instar.train.bundle import Manifest, Tensor


def signature_of(policy: Policy, manifests: Mapping[int, Manifest]) -> Signature:
    """The champion's inputs, then those that only other versions read, not required.

    Raises:
        Blocked: The versions cannot answer the same calls: one takes columns and another tensors, or tensors of one name differ.
    """
    kinds = {version: manifests[version].tensors is not None for version in policy.versions}
    if len(set(kinds.values())) > 1:
        raise Blocked(
            "one endpoint cannot have versions that take columns and versions that take tensors",
            subject=f"endpoint {policy.endpoint}",
            found=", ".join(f"version {v}: {'tensors' if takes else 'columns'}" for v, takes in kinds.items()),
            next_step="Give the new form of the model an endpoint of its own.",
        )
    made = _tensors(policy, manifests) if any(kinds.values()) else _columns(policy, manifests)
    return msgspec.structs.replace(made, limits=_limits(policy, manifests))


def _limits(policy: Policy, manifests: Mapping[int, Manifest]) -> dict[str, Limits]:
    """What was declared with the champion; of an input that it does not have, with the first version that has it."""
    found: dict[str, Limits | None] = {}
    for version in sorted(policy.versions, key=lambda one: one != policy.champion):
        manifest = manifests[version]
        for one in manifest.tensors.inputs if manifest.tensors is not None else manifest.inputs:
            found.setdefault(one.name, one.limits)
    return {name: limits for name, limits in found.items() if limits is not None}


def _columns(policy: Policy, manifests: Mapping[int, Manifest]) -> Signature:
    columns: dict[str, InputColumn] = {}
    for version in policy.versions:
        required = version == policy.champion
        for column in manifests[version].inputs:
            known = columns.get(column.name)
            if known is None:
                columns[column.name] = InputColumn(
                    column.name,
                    column.datatype,
                    column.nullable or not required,
                    required,
                    column.privacy == "personal",
                )
            elif column.privacy == "personal" and not known.personal:
                # One version that calls a column personal is enough: the record has one form.
                columns[column.name] = msgspec.structs.replace(known, personal=True)
    return Signature(tuple(columns.values()))


def _tensors(policy: Policy, manifests: Mapping[int, Manifest]) -> Signature:
    tensors: dict[str, TensorSpec] = {}
    outputs: tuple[TensorSpec, ...] | None = None
    rows: dict[int, bool] = {}
    for version in policy.versions:
        own = manifests[version].tensors
        assert own is not None
        rows[version] = own.rows
        if outputs is None:
            outputs = tuple(TensorSpec(one.name, one.datatype, one.shape) for one in own.outputs)
        for tensor in own.inputs:
            known = tensors.get(tensor.name)
            if known is None:
                required = version == policy.champion and not tensor.optional
                tensors[tensor.name] = _spec(tensor, required)
            elif known.datatype != tensor.datatype or len(known.shape) != len(tensor.shape):
                raise Blocked(
                    f"its versions disagree on the tensor {tensor.name!r}",
                    subject=f"endpoint {policy.endpoint}",
                    found=f"version {version}: {tensor.datatype} {list(tensor.shape)}",
                    asked=f"{known.datatype} {list(known.shape)}",
                    next_step="Give the new form of the model an endpoint of its own.",
                )
            elif tensor.privacy == "personal" and not known.personal:
                tensors[tensor.name] = msgspec.structs.replace(known, personal=True)
    if len(set(rows.values())) > 1:
        raise Blocked(
            "its versions disagree on what a prediction is",
            subject=f"endpoint {policy.endpoint}",
            found=", ".join(f"version {v}: {'one a row' if by else 'one a call'}" for v, by in rows.items()),
            next_step="Give the new form of the model an endpoint of its own.",
        )
    return Signature((), tuple(tensors.values()), outputs or (), any(rows.values()))


def _spec(tensor: Tensor, required: bool) -> TensorSpec:
    return TensorSpec(
        tensor.name, tensor.datatype, tensor.shape, tensor.nullable, required, tensor.privacy == "personal"
    )
