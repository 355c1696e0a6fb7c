"""An interrupt waits for the end of what may not be left half done, and then takes effect."""

from __future__ import annotations

import signal
import threading

import pytest

from instar.adapters.interrupts import held_back


def test_an_interrupt_takes_effect_at_the_end() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _work(done)
    assert done == ["inner", "outer"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def _work(done: list[str]) -> None:
    with held_back():
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    done.append("never")


def test_other_threads_have_none_to_hold_back() -> None:
    done = []

    def work() -> None:
        with held_back():
            done.append("here")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["here"]
