"""The models of a request: its artifact, and the reference that a latency task names beside it."""

from __future__ import annotations

import gc
from typing import Any, Literal

from objectives.request import LatencyTask, Request
from objectives.session import open_model

Of = Literal["artifact", "reference"]


class Models:
    """Opens each when it is first used; where a task is not ``resident`` the other one is closed before."""

    def __init__(self, request: Request) -> None:
        timed = next((task for task in request.tasks if isinstance(task, LatencyTask)), None)
        self._request = request
        self._reference = timed.reference if timed else None
        self._one_at_a_time = timed is not None and not timed.resident
        self._open: dict[Of, Any] = {}

    def is_open(self, of: Of) -> bool:
        return of in self._open

    def use(self, of: Of) -> Any:
        """The model, opened where it is not. Raises RuntimeError (from the library) where it cannot be."""
        if of not in self._open:
            if self._one_at_a_time:
                self._open.clear()
                gc.collect()
            asked = self._request
            artifact = self._reference.artifact if of == "reference" and self._reference else asked.artifact
            self._open[of] = open_model(artifact, asked.provider, asked.provider_options, asked.threads)
        return self._open[of]

    def min_length(self, of: Of) -> int:
        """Of its generators, in tokens."""
        if of == "reference" and self._reference:
            return self._reference.min_generator_length
        return self._request.min_generator_length
