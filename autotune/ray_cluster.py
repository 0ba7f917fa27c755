"""A Ray cluster to work in: joined, or started on this machine; and whether its nodes can do what a study asks."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from autotune import __version__
from autotune.errors import ConfigError, Problem, StudyError
from autotune.run_folder import LIBRARIES
from autotune.storage.entry_key import library_version
from autotune.workers import Kind

Needs = Mapping[Kind, Mapping[str, float]]

KINDS: tuple[Kind, ...] = ("build", "train", "answers", "probe")
#: What is ours in Ray's options; any other name is a custom resource, which nodes are started with.
_OWN = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}
#: Having rows answered takes so much of a device: many may at a time, and none while latency is measured there.
_SHARE_OF_DEVICE = 0.001
_OBJECTS_BYTES = 128 * 2**20
_HERE = "device:local"
#: Read by Ray when it is imported and by the processes that it starts. No telemetry; no cluster that nobody asked for;
#: a stage that asks for no GPU sees those of its machine as without Ray.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0",
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
#: What the keys of stored results rest on, so that nodes must have the same.
_PROBE_LIBRARIES = ("onnxruntime", "onnxruntime-genai")


def import_ray() -> Any:
    """Ray, told to be quiet. Raises ConfigError where it is not installed."""
    os.environ.update(_ENVIRONMENT)
    try:
        import ray
    except ImportError:
        raise ConfigError([Problem("study.yaml", "workers", "ray, which is not installed here",
                                   "pip install 'autotune-edge[ray]', or workers: local")]) from None
    return ray


def with_defaults(
    asked: Needs, address: str | None, count: int, cores: int, measures: bool = True
) -> dict[Kind, dict[str, float]]:
    """What each kind of stage needs. Without a word on it: one CPU, or on this machine alone the share that ``count``
    workers have of its ``cores``; and rows are answered where latency is measured, as kernels differ. Unless it
    ``measures``, nothing is needed for that."""
    cpu = 1 if address else max(1, cores // count)
    needs: dict[Kind, dict[str, float]] = {kind: {"cpu": cpu, **asked.get(kind, {})} for kind in KINDS}
    if not measures:
        del needs["probe"]
        return needs
    if address is None and not _devices(needs["probe"]):
        needs["probe"][_HERE] = 1
    if not _devices(needs["answers"]):
        needs["answers"] |= dict.fromkeys(_devices(needs["probe"]), _SHARE_OF_DEVICE)
    return needs


def connect(address: str | None, count: int, needs: Needs) -> None:
    """Join the cluster at ``address``, or start one on this machine that offers what is needed.

    Raises:
        ConfigError: Ray is not installed, or no node offers what a kind of stage needs.
        StudyError: there is no such cluster, or it cannot be started.
    """
    ray = import_ray()
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with _signals_kept():
        try:
            if address:
                _require_listener(address)
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECTS_BYTES,
                         num_cpus=_cpus(count, needs), resources=_offered(count, needs), **quiet)
        except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split())[:300]
            raise StudyError(f"Ray{f' at {address}' if address else ''} cannot be reached: {reason}" if address else
                             f"Ray cannot be started on this machine: {reason}") from error
    if problems := missing(needs, [n["Resources"] for n in ray.nodes() if n["Alive"]]):
        ray.shutdown()
        raise ConfigError(problems)


def missing(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> list[Problem]:
    """What no node offers, and devices that are not one machine. ``nodes`` are the resources of each."""
    problems = []
    for kind, wanted in needs.items():
        if not any(_suits(wanted, node) for node in nodes):
            asked = ", ".join(f"{name}: {amount:g}" for name, amount in wanted.items())
            names = sorted({n for node in nodes for n in node if not n.startswith(("node:", "accelerator_type:"))})
            problems.append(_problem(kind, f"{{{asked}}}, which no node has", f"of what one node offers: "
                                     f"{', '.join(names)}; ray start --resources='{{\"NAME\": 1}}' adds to it"))
    devices = _devices(needs.get("probe", {}))
    if "probe" in needs and not devices and len(nodes) > 1:
        problems.append(_problem("probe", "no device in a cluster of several machines", "{device:NAME: 1}, the machine "
                                 "that latency is measured on: ray start --resources='{\"device:NAME\": 1}' there"))
    for name in devices:
        if (offered := sum(node.get(name, 0.0) for node in nodes)) > 1:
            problems.append(_problem("probe", f"{name}, of which the cluster offers {offered:g}",
                                     "a device that one node offers, and once: it is one machine"))
    return problems


def require_alike(needs: Needs, folders: Sequence[Path]) -> None:
    """Every node that may get a stage has our version, the libraries that results are stored under, and ``folders``.

    Raises ConfigError with what is another on which node.
    """
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    problems: list[Problem] = []
    with _tokens(folders) as tokens:
        for node in (n for n in ray.nodes() if n["Alive"]):
            if not (kinds := [k for k, wanted in needs.items() if _suits(wanted, node["Resources"])]):
                continue
            libraries = _PROBE_LIBRARIES if {"build", "train"}.isdisjoint(kinds) else LIBRARIES
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked = ray.remote(_facts).options(num_cpus=0, scheduling_strategy=there).remote(libraries, tokens)
            try:
                versions, unseen = ray.get(asked)
            except ray.exceptions.RayError as error:
                last = str(error).strip().splitlines()[-1][:200]
                problems.append(_node_problem(node, f"autotune does not run there: {last}", "the same installation"))
                continue
            here = _versions(libraries)
            problems += [_node_problem(node, f"{name} {found}", f"{here[name]}, as here: results are stored under it")
                         for name, found in versions.items() if found != here[name]]
            problems += [_node_problem(node, f"{Path(token).parent} is not there, or another folder",
                                       "one file system at one path on all machines") for token in unseen]
    if problems:
        ray.shutdown()
        raise ConfigError(problems)


def ray_options(wanted: Mapping[str, float]) -> dict[str, Any]:
    """What a kind of stage needs, as options of a Ray task."""
    own = {"cpu": "num_cpus", "gpu": "num_gpus", "memory": "memory"}
    options: dict[str, Any] = {own[name]: amount for name, amount in wanted.items() if name in own}
    return {**options, "resources": {name: amount for name, amount in wanted.items() if name not in own}}


def _facts(libraries: Sequence[str], tokens: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """On a node: its versions, and the tokens that it does not see."""
    return _versions(libraries), [token for token in tokens if not Path(token).exists()]


def _versions(libraries: Sequence[str]) -> dict[str, str]:
    return {"autotune": __version__, **{name: library_version(name) for name in libraries}}


@contextmanager
def _tokens(folders: Sequence[Path]) -> Iterator[list[str]]:
    """A file of our own in each folder that we may write to: a folder of that name on another machine lacks it."""
    files: list[Path] = []
    try:
        for folder in folders:
            file = folder / f".seen-{uuid.uuid4().hex[:8]}"
            with contextlib.suppress(OSError):
                file.touch()
                files.append(file)
        yield [str(file) for file in files]
    finally:
        for file in files:
            file.unlink(missing_ok=True)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of ours, which makes a kill an interruption."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # in another thread than the first, where Ray leaves signals alone
            signal.signal(signal.SIGTERM, before)


def _require_listener(address: str) -> None:
    """Raises OSError where nothing answers at HOST:PORT: Ray itself would try, and complain, for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _devices(wanted: Mapping[str, float]) -> list[str]:
    return [name for name in wanted if name.startswith("device:")]


def _suits(wanted: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(node.get(_OWN.get(name, name), 0.0) >= amount for name, amount in wanted.items())


def _cpus(count: int, needs: Needs) -> int:
    return int(max(count * wanted["cpu"] for wanted in needs.values()) + 0.999)


def _offered(count: int, needs: Needs) -> dict[str, float]:
    """This machine has the names that the study uses, each device once and of all else enough for every worker."""
    names = {name: amount for wanted in needs.values() for name, amount in sorted(wanted.items(), key=lambda i: i[1])}
    return {name: 1 if name.startswith("device:") else count * amount
            for name, amount in names.items() if name not in _OWN}


def _problem(kind: str, found: str, accepted: str) -> Problem:
    return Problem("study.yaml", f"workers.ray.resources.{kind}", found, accepted)


def _node_problem(node: Mapping[str, Any], found: str, accepted: str) -> Problem:
    return Problem("Ray", f"node {cast(str, node['NodeManagerAddress'])}", found, accepted)
