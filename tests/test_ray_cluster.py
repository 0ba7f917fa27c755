"""What stages need of a cluster's nodes: defaults, and what no node offers. Ray itself is not needed for this."""

from __future__ import annotations

from autotune.ray_cluster import missing, ray_options, with_defaults

PI = {"CPU": 4.0, "memory": 8e9, "device:pi": 1.0}
GPU = {"CPU": 32.0, "GPU": 2.0, "memory": 1e11}


def test_on_this_machine_alone_workers_share_its_cores_and_it_is_the_device() -> None:
    needs = with_defaults({}, None, 2, 8)
    assert needs["train"] == {"cpu": 4}
    assert needs["probe"] == {"cpu": 4, "device:local": 1}
    assert 0 < needs["answers"]["device:local"] < 0.01


def test_answers_come_from_where_latency_is_measured_unless_it_is_said_otherwise() -> None:
    needs = with_defaults({"probe": {"device:pi": 1}, "train": {"gpu": 1, "cpu": 8}}, "auto", 4, 8)
    assert needs["train"] == {"cpu": 8, "gpu": 1}
    assert set(needs["answers"]) == {"cpu", "device:pi"}
    own = with_defaults({"probe": {"device:pi": 1}, "answers": {"device:pi": 0.25}}, "auto", 4, 8)
    assert own["answers"]["device:pi"] == 0.25


def test_what_no_single_node_offers_is_said_with_what_there_is() -> None:
    needs = with_defaults({"probe": {"device:pi": 1}, "train": {"gpu": 1}}, "auto", 2, 8)
    assert missing(needs, [PI, GPU]) == []
    first, *others = missing(needs, [{**GPU, "GPU": 0.5}, PI])
    assert (first.where, others) == ("workers.ray.resources.train", [])
    assert "gpu: 1}, which no node has" in first.found
    assert "device:pi" in first.accepted
    assert {p.where for p in missing(needs, [GPU])} == {f"workers.ray.resources.{k}" for k in ("answers", "probe")}


def test_a_device_is_one_machine_and_a_cluster_has_to_name_it() -> None:
    needs = with_defaults({"probe": {"device:pi": 1}}, "auto", 2, 8)
    assert "offers 2" in missing(needs, [PI, PI])[0].found
    assert "no device" in missing(with_defaults({}, "auto", 2, 8), [GPU, PI])[0].found
    assert missing(with_defaults({}, "auto", 2, 8), [GPU]) == []


def test_a_cluster_that_does_not_measure_needs_no_device() -> None:
    needs = with_defaults({"train": {"gpu": 1}}, "auto", 2, 8, measures=False)
    assert set(needs) == {"build", "train", "answers"}
    assert missing(needs, [GPU, GPU]) == []


def test_needs_become_rays_own_options() -> None:
    assert ray_options({"cpu": 4, "gpu": 1, "memory": 1e9, "device:pi": 1}) == {
        "num_cpus": 4, "num_gpus": 1, "memory": 1e9, "resources": {"device:pi": 1}}
