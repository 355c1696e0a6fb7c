from __future__ import annotations

import os
import struct
from pathlib import Path

import msgspec
import pytest

from instar.serve.log import layout, record
from instar.serve.log.record import Answer, Call, End, Frame, Head, Later, Personal, Schema, Tensor, Work

GOLDEN = Path(__file__).parent / "golden" / "record2.hex"
FIRST_FORMAT = Path(__file__).parent / "golden" / "record.hex"
CALL = "call_01HF7YAT0000003R000000001A"

ANSWERS = (
    Answer(3, "champion", (0.25, 0.5), (0, 1), 0.3),
    Answer(4, "canary", (), (), 0.4, "ValueError: no"),
)
WORK = Work("mine", ("UA 17", "UA 18"), "tver_1", 0, 2, ((1400.0, None), ("UA", "DL"), None), 3, ANSWERS, 12, 34, None)
FAILED = Call(CALL, 2, 3, "ada", 7, "canary", 4, None, 503, 100, 90, "Unavailable: gone", None)
PLAIN_ENTRIES = [
    Head(1, "delay", 120, 0, 1_700_000_000_000_000),
    Schema(0, (("distance", "FP64", False), ("carrier", "BYTES", False), ("name", "BYTES", True))),
    Call(CALL, 1, 2, "ada", 7, "champion", 3, "key", 200, 420, 300, None, WORK, 2),
    FAILED,
    Later(CALL, 5, (Answer(1, "rule", (0.1, 0.2), (0, 0), 0.3),)),
    End(9),
]
TENSOR_WORK = Work(
    None, None, None, 1, 2, (), 3,
    (
        Answer(3, "champion", (0.25, 0.5), (), None, None, (Tensor("score", "FP32", (2, 1), struct.pack("<2f", 0.25, 0.5)),)),
        Answer(4, "canary", (), (), None, "ValueError: no"),
    ),
    5, 6, None,
    (
        Tensor("x", "FP32", (2, 2), struct.pack("<4f", 1, 2, 3, 4)),
        Tensor("words", "BYTES", (2,), ("a", "é")),
        Tensor("image", "UINT8", (2, 3, 64, 64), b"\1\2", b"\3\4", bytes(32), 24576),
    ),
)  # fmt: skip
ENTRIES = [
    *PLAIN_ENTRIES,
    Schema(
        1, (), (("x", "FP32", (-1, 2), False), ("words", "BYTES", (-1,), False), ("image", "UINT8", (-1, 3, 64, 64), False)),
        (("score", "FP32", (-1, 1)),), True,
    ),
    Call(CALL, 1, 2, "ada", 7, "champion", 3, None, 200, 420, 300, None, TENSOR_WORK),
]  # fmt: skip


def test_the_form_on_disk_does_not_change() -> None:
    """Renew with INSTAR_RENEW_GOLDEN=1 only when fields were added at the end."""
    lines = [record.encode_frame(at, record.encode_entry(entry)).hex() for at, entry in enumerate(ENTRIES)]
    lines.append(
        record.encode_frame(9, b"m", b"salt", record.encode_entry(Personal({"name": ["masked:1"]}, ["E"], "k"))).hex()
    )
    if os.environ.get("INSTAR_RENEW_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("\n".join(lines) + "\n")
    assert lines == GOLDEN.read_text().splitlines()


def test_what_the_first_format_wrote_is_read() -> None:
    """That file is never renewed."""
    frames = [record.decode_frame(bytes.fromhex(line)) for line in FIRST_FORMAT.read_text().splitlines()]
    assert [record.decode_entry(frame.metadata) for frame in frames[:-1]] == PLAIN_ENTRIES
    assert record.decode_personal(frames[-1].personal or b"") == Personal({"name": ("masked:1",)}, ("E",), "k")


def test_entries_come_back() -> None:
    for entry in ENTRIES:
        assert record.decode_entry(record.encode_entry(entry)) == entry


def test_the_id_of_a_call_is_read_without_the_rest() -> None:
    told = [entry for entry in ENTRIES if isinstance(entry, Call | Later)]
    long = msgspec.msgpack.encode(
        [*msgspec.msgpack.decode(record.encode_entry(FAILED)), None, None]
    )  # of a later writer
    assert [record.call_of(record.encode_entry(entry)) for entry in told] == [CALL] * len(told)
    assert (long[0], record.call_of(long)) == (0xDC, CALL)


def test_a_call_is_written_around_the_workers_part() -> None:
    call = ENTRIES[2]
    assert isinstance(call, Call)
    around = record.encode_call(
        *msgspec.structs.astuple(msgspec.structs.replace(call, work=record.encode_entry(WORK)))  # type: ignore[arg-type]
    )
    assert around == record.encode_entry(call)
    assert record.encode_call(*msgspec.structs.astuple(FAILED)) == record.encode_entry(FAILED)
    assert record.encode_later(CALL, 5, record.encode_entry(ENTRIES[4].answers)) == record.encode_entry(ENTRIES[4])


def test_entries_of_an_older_writer_are_read() -> None:
    """A call written before `laters` was added has none to come."""
    fields = msgspec.msgpack.decode(record.encode_entry(FAILED))
    assert record.decode_entry(msgspec.msgpack.encode(fields[:-1])) == FAILED


def test_erasing_a_person_keeps_the_leaf() -> None:
    whole = layout.keep("delay/0", Frame(3, b"metadata", b"salt", b"person"))
    assert whole.without_person().leaf_hash() == whole.pruned().leaf_hash() == whole.leaf_hash()
    assert layout.keep("delay/0", Frame(3, b"metadata")).leaf_hash() != whole.leaf_hash()


@pytest.mark.parametrize("change", ["sequence", "metadata", "salt", "personal"])
def test_a_leaf_covers_all_of_a_frame(change: str) -> None:
    whole = Frame(3, b"metadata", b"salt", b"person")
    other = msgspec.structs.replace(whole, **{change: 4 if change == "sequence" else b"other"})
    assert layout.keep("delay/0", other).leaf_hash() != layout.keep("delay/0", whole).leaf_hash()


def test_a_root_covers_each_leaf_and_their_order() -> None:
    leaves = [bytes([n]) * 32 for n in range(7)]
    roots = {record.merkle_root(leaves), record.merkle_root(leaves[::-1])}
    roots |= {record.merkle_root(leaves[:at] + leaves[at + 1 :]) for at in range(7)}
    assert len(roots) == 9
