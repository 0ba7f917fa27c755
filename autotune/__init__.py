"""autotune: fine-tune a small language model for a device, under limits, measured on what ships.

::

    import autotune

    run = autotune.run("study.yaml")     # or autotune.load("runs/tone")
    run.selected, run.front(), run.trials()
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# ONNX Runtime's wheels hold a telemetry client; it reads this when it is loaded, here and in our processes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from autotune.api import Run as Run
    from autotune.api import Selected as Selected
    from autotune.api import load as load
    from autotune.api import run as run
    from autotune.errors import AutotuneError as AutotuneError
    from autotune.errors import ConfigError as ConfigError
    from autotune.errors import InputError as InputError
    from autotune.errors import StudyError as StudyError
    from autotune.errors import TrackingError as TrackingError
    from autotune.stats import Measurement as Measurement

#: Name → the module that it is in, which is loaded when the name is first used.
_EXPORTS = {
    "run": "autotune.api", "load": "autotune.api", "Run": "autotune.api", "Selected": "autotune.api",
    "Measurement": "autotune.stats",
    "AutotuneError": "autotune.errors", "InputError": "autotune.errors", "ConfigError": "autotune.errors",
    "StudyError": "autotune.errors", "TrackingError": "autotune.errors",
}


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
