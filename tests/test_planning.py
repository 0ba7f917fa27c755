"""What of a time budget is kept back for the certificate."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autotune.search.planning import Planner
from autotune.search.schedule import Budget
from autotune.stats import Measurement
from autotune.trials import TrialRecord
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

POINT = DeployParams("int8")
MS = {"latency_ms.p50": 100.0, "latency_ms.p50@pi": 700.0, "latency_ms.p50@jetson": 300.0}


def planner(
    target: str, devices: dict[str, str], finalists: int = 3, time_s: float | None = 2000.0, timed: bool = True
) -> Planner:
    """Certifying takes as many seconds as a request milliseconds."""
    file = SimpleNamespace(
        certificate=SimpleNamespace(finalists=finalists), target=SimpleNamespace(host=target),
        devices={name: SimpleNamespace(host=host) for name, host in devices.items()} or None)
    values = {key: Measurement(ms, ms, ms, 20, "ms") for key, ms in MS.items() if timed}
    config: Any = SimpleNamespace(file=file)
    prepared: Any = SimpleNamespace(data=SimpleNamespace(valid=range(10)))
    screened: Any = {POINT: SimpleNamespace(values=values)}
    limits: Any = None
    return Planner(config, prepared, screened, [POINT], limits, Budget(None, None, time_s), "accuracy", 1,
                   lambda latency_ms, row_s: latency_ms)


@pytest.mark.parametrize(("target", "devices", "kept_back"), [
    ("local", {}, 100), ("ssh://a", {}, 100),
    ("local", {"pi": "ssh://a"}, 800), ("local", {"pi": "ssh://a", "jetson": "ssh://b"}, 800),
    ("local", {"pi": "ssh://a", "jetson": "ssh://a"}, 1100), ("local", {"pi": "local"}, 800),
    ("ssh://a", {"pi": "ssh://b"}, 700), ("ssh://a", {"pi": "ssh://b", "jetson": "ssh://a"}, 700),
])
def test_every_device_has_its_time_once_and_remote_ones_side_by_side(target, devices, kept_back):
    assert planner(target, devices).spare_s(500.0, [], None) == 1500 - kept_back


def test_nothing_is_kept_back_for_no_certificate_and_nothing_spare_without_a_budget():
    assert planner("local", {"pi": "ssh://a"}, finalists=0).spare_s(500.0, [], None) == 1500
    assert planner("local", {}, time_s=None).spare_s(500.0, [], None) == 0


def test_where_only_trials_are_timed_the_chosen_one_tells_how_long_certifying_takes():
    ms = Measurement(400.0, 400.0, 400.0, 20, "ms")
    record = TrialRecord(3, "COMPLETE", AdapterParams(8, 8, 1e-4), POINT, None, {"latency_ms.p50": ms}, {}, None, None)
    searching = planner("local", {}, timed=False)
    assert searching.spare_s(500.0, [record], 3) == 1100
    assert searching.spare_s(500.0, [], None) == 1500


def test_rows_of_a_point_that_none_was_asked_at_take_as_much_longer_as_its_first_token():
    slow, searching = DeployParams("fp16"), planner("local", {})
    ms = {POINT: Measurement(100.0, 100.0, 100.0, 20, "ms"), slow: Measurement(250.0, 250.0, 250.0, 20, "ms")}
    searching = replace(searching, screened={p: SimpleNamespace(values={"ttft_ms.p50": m}) for p, m in ms.items()},
                        points=[POINT, slow], certifying=lambda latency_ms, row_s: row_s)
    stages: Any = {"answers": {"seconds": 2.0, "cached": False}}
    asked = TrialRecord(0, "COMPLETE", AdapterParams(8, 8, 1e-4), POINT, None, {}, stages, None, None)
    assert searching._reserves([asked]) == pytest.approx({POINT.label: 0.2, slow.label: 0.5})
    later = replace(asked, number=1, deploy=slow, stages={"answers": {"seconds": 6.0, "cached": False}})
    assert searching._reserves([asked, later]) == pytest.approx({POINT.label: 0.2, slow.label: 0.6})
