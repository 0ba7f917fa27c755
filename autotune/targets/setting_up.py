"""``autotune device setup``: an environment on the device with what the probe needs, and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import asyncssh

from autotune.errors import DeviceError
from autotune.targets.address import Place
from autotune.targets.agent import Agent, agent_on, venv_python
from autotune.targets.checks import Check, accepted_versions, checks, clock, distributions, require
from autotune.targets.ssh import once, take_lock

Say = Callable[[str], None]
_LAST_LINES = 4


def requirements(provider: str) -> list[str]:
    """What pip is asked for: ONNX Runtime in the range in which artifacts are made here, and two small packages."""
    return [f"{name}{accepted_versions(name)}" for name in distributions(provider)]


def set_up(place: Place, python: str, provider: str, say: Say) -> list[Check]:
    """Make the environment, or complete it, with the device's interpreter ``python``; returns what is there then.

    ``say`` is given what pip prints. Raises DeviceError with its last lines where that fails.
    """
    async def make() -> None:
        async with agent_on(replace(place, python=python)) as agent:
            facts = agent.hello["facts"]
            require(place.name, [c for c in checks(place.name, facts, provider) if c.name == "architecture"])
            await take_lock(agent, say)  # it loads the device
            await _make(agent, provider, say, clock(facts["now"]))

    async def look() -> tuple[Any, Any]:
        async with agent_on(replace(place, python=None)) as agent:
            return agent.hello["facts"], await agent.ask("providers")

    once(place, make)
    facts, providers = once(place, look)
    return checks(place.name, facts, provider, providers)


async def _make(agent: Agent, provider: str, say: Say, clock: Check) -> None:
    root, base = agent.hello["root"], agent.hello["python"]
    own = venv_python(root)
    works = await agent.connection.run(f"{shlex.quote(own)} -m pip --version")
    if works.exit_status != 0:
        say(f"making an environment with {base}")
        await _run(agent, [base, "-m", "venv", "--clear", f"{root}/venv"], say,
                   "an interpreter that can make environments (Debian: sudo apt install python3-venv)")
    hint = "" if clock.state == "ok" else f"; and its clock {clock.found}: {clock.accepted}"
    await _run(agent, [own, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--prefer-binary",
                       "--progress-bar", "off", *requirements(provider)], say,
               f"a package index that the device reaches (pip config set global.index-url URL there){hint}")


async def _run(agent: Agent, words: Sequence[str], say: Say, accepted: str) -> None:
    last: list[str] = []
    async with agent.connection.create_process(shlex.join(words), stderr=asyncssh.STDOUT) as process:
        process.stdin.write_eof()
        async for line in process.stdout:
            if line.strip():
                last = [*last, line.strip()][-_LAST_LINES:]
                say(line.rstrip())
        done = await process.wait()
    if done.exit_status != 0:
        told = " | ".join(last)[-600:]
        raise DeviceError(agent.place.name, "setup", f"{' '.join(words[1:3])} ended with exit code {done.exit_status}; "
                          f"it last said: {told}", accepted)
