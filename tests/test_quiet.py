"""Outside load is what others took, however busy the process itself was."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from objectives import quiet
from objectives.quiet import Counters, Load, between, counters
from tests.timings import busy


def test_what_the_process_took_itself_is_not_outside_load() -> None:
    start = Counters(at=10.0, busy=100.0, own=5.0, steal=1.0, throttled=3)
    load = between(start, Counters(at=12.0, busy=104.5, own=8.5, steal=1.1, throttled=4))
    assert (load.seconds, load.outside_cores, load.throttled) == (2.0, 0.5, 1)
    assert load.steal_cores == pytest.approx(0.05)
    # Ticks of the whole machine may lag behind the process's own clock.
    assert between(start, Counters(12.0, 103.4, 8.5, None, None)) == Load(2.0, 0.0, None, None)


@pytest.mark.parametrize(
    ("seconds", "outside", "steal", "disturbed"),
    [(1.0, 0.1, 0.0, False), (1.0, 0.3, 0.0, True), (1.0, 0.1, 0.3, True), (1.0, 0.1, None, False),
     (0.2, 0.2, 0.0, False), (0.2, 0.4, 0.0, True), (10.0, 0.16, 0.0, True)],
)
def test_a_block_is_disturbed_beyond_the_limit_and_the_counters_steps(
    seconds: float, outside: float, steal: float | None, disturbed: bool
) -> None:
    assert Load(seconds, outside, steal, None).disturbed is disturbed


def test_another_process_is_seen() -> None:
    with busy():
        start = counters()
        time.sleep(0.6)
        load = between(start, counters())
    assert load.outside_cores > 0.4
    assert load.disturbed


def test_settling_waits_for_our_own_threads_and_no_longer_than_its_cap() -> None:
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        assert quiet.settle() >= quiet._SETTLE_CAP_S
    finally:
        ended.set()
        thread.join()


def test_of_the_sensors_the_processors_counts_and_silence_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    read = {"nvme": [SimpleNamespace(current=91.0)],
            "coretemp": [SimpleNamespace(current=55.0), SimpleNamespace(current=61.0)]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: read, raising=False)
    assert quiet.temperature_c() == 61.0
    read.pop("coretemp")
    assert quiet.temperature_c() is None
    monkeypatch.delattr(psutil, "sensors_temperatures")
    assert quiet.temperature_c() is None

    def unreadable() -> None:
        raise FileNotFoundError("/sys/devices/system/cpu/cpufreq")

    monkeypatch.setattr(psutil, "cpu_freq", unreadable, raising=False)
    assert quiet.mhz() is None
