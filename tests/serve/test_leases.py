from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import Damaged
from instar.serve.traffic import leases
from instar.serve.traffic.leases import Lease, remaining

NOW = 1_800_000_000_000_000


def test_a_lease_is_begun_once_and_renewed_each_time(tmp_path: Path) -> None:
    assert leases.read_leases(tmp_path) == {}
    leases.begin(tmp_path, {"delay": 3}, NOW)
    leases.begin(tmp_path, {"delay": 3, "tone": 1}, NOW + 5)
    assert leases.read_leases(tmp_path) == {"delay": Lease(3, NOW), "tone": Lease(1, NOW + 5)}
    assert leases.renew(tmp_path, {"delay": 3}, NOW + 9)["delay"] == Lease(3, NOW)
    leases.begin(tmp_path, {"tone": 2}, NOW + 9)  # another policy has another lease
    assert leases.read_leases(tmp_path) == {"delay": Lease(3, NOW + 9), "tone": Lease(2, NOW + 9)}


def test_a_lease_that_somebody_else_wrote_is_refused(tmp_path: Path) -> None:
    leases.renew(tmp_path, {"delay": 3}, NOW)
    file = leases.leases_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(str(NOW).encode(), str(NOW * 2).encode()))
    with pytest.raises(Damaged):
        leases.read_leases(tmp_path)
    leases.renew(tmp_path, {"delay": 3}, NOW)
    assert leases.read_leases(tmp_path) == {"delay": Lease(3, NOW)}


@given(st.integers(-(10**9), 10**9), st.floats(1, 10**5))
def test_no_wall_clock_makes_a_lease_longer(apart: int, seconds: float) -> None:
    left = remaining(Lease(1, NOW), 1, seconds, NOW + apart * 1000)
    assert 0 <= left <= seconds
    if apart >= 0:
        assert left == pytest.approx(max(seconds - apart / 1000, 0))


def test_word_about_another_policy_is_none() -> None:
    assert remaining(Lease(1, 0), 2, 60.0, NOW) == 60.0  # this one was begun when its routes were published
    assert remaining(None, 2, 60.0, NOW) == 60.0
