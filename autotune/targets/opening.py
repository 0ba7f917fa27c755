"""The device that a study names, opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autotune.run_folder import environment
from autotune.targets.address import LOCAL
from autotune.targets.device import Device
from autotune.targets.devices import find_place
from autotune.targets.local import Local
from autotune.targets.on_workers import OnWorkers
from autotune.workers import Workers

#: What of this machine a stored latency depends on.
_MACHINE = ("platform", "cpu", "cores", "memory_gb")


def open_device(
    host: str, python: str | None, provider: str, say: Callable[[str], None], warn: Callable[[str], None],
    workers: Workers, name: str = "",
) -> Device:
    """The study's target, or of its further devices the one called ``name``. ``host`` is ``local``, which is where the
    ``workers`` are, or what `find_place` takes. Of a remote device ``say`` is told which it is, and ``warn`` what the
    user should know of it, now and while it measures.

    Raises:
        ConfigError: there is no device of this name.
        DeviceError: it cannot be reached, or nothing can be measured there.
        StageError: no worker tells what it runs on.
    """
    if host == LOCAL and not workers.here:
        return OnWorkers(workers, _MACHINE)
    if host == LOCAL:
        here = environment()
        return Local({name: here[name] for name in _MACHINE})
    from autotune.targets.ssh import open_ssh  # brings the SSH library, which a study of this machine needs none of

    place = find_place(host, python, file="study.yaml", where=f"devices.{name}.host" if name else "target.host")
    device = open_ssh(place, provider, warn)
    about: Mapping[str, Any] = device.fingerprint
    known_as = f"{name}, {host}" if name else host
    say(f"Measuring on {known_as}: {about['board'] or about['cpu'] or about['architecture']}, {about['cores']} cores, "
        f"{about['memory_gb']} GB, ONNX Runtime {about['libraries']['onnxruntime']}")
    return device
