"""An answer's head leaves with the first part of its body, and never later than the event loop's next turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from instar.serve.gateway.one_write import _Gathering

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Recorder:
    """A transport that keeps what is written, one entry a system call."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.calls.append(b"".join(parts))

    def close(self) -> None:
        self.calls.append("closed")

    def abort(self) -> None:
        self.calls.append("aborted")

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None: ...

    def set_protocol(self, protocol: object) -> None:
        self.calls.append(protocol)


async def _calls(*steps: tuple[str, Any]) -> list[Any]:
    recorder = Recorder()
    transport = _Gathering(recorder, asyncio.get_running_loop())
    for name, value in steps:
        if name == "turn":
            await asyncio.sleep(0)
        else:
            getattr(transport, name)(*((value,) if value is not None else ()))
    await asyncio.sleep(0)
    return recorder.calls


@pytest.mark.parametrize(
    ("steps", "calls"),
    [
        ([("write", HEAD), ("write", b"{}")], [HEAD + b"{}"]),
        ([("write", HEAD), ("write", b"a"), ("write", b"b")], [HEAD + b"a", b"b"]),
        ([("write", HEAD)], [HEAD]),  # no body: to HEAD, or 304
        ([("write", HEAD), ("turn", None), ("write", b"late")], [HEAD, b"late"]),
        ([("write", HEAD), ("close", None)], [HEAD, "closed"]),
        ([("write", HEAD), ("abort", None)], ["aborted"]),
        ([("write", HEAD), ("write", b"x"), ("write", HEAD), ("write", b"y")], [HEAD + b"x", HEAD + b"y"]),
        ([("set_protocol", "other")], ["other"]),
    ],
)
def test_head_and_body_leave_together(steps: list[tuple[str, Any]], calls: list[Any]) -> None:
    assert asyncio.run(_calls(*steps)) == calls
