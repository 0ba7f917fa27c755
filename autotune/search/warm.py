"""What an earlier run of the same base model knows of adapters, for a search to begin with (``--warm-start RUN``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from autotune.errors import ConfigError, Problem
from autotune.report.dashboard import proposals_name
from autotune.search.asking import Known
from autotune.search.proposals import read_study

_OPTION = "--warm-start"


@dataclass(frozen=True)
class Earlier:
    """``comparable``: the adapters answered the same rows for the same objectives, so their values teach this search's
    sampler, too; else they only are its first adapters."""

    known: tuple[Known, ...]
    comparable: bool


def earlier_adapters(run: Path, base: str, data: str, names: Sequence[str]) -> Earlier:
    """The adapters of the run folder ``run`` of which something is known.

    ``base`` and ``data`` are this study's inputs, ``names`` what its sampler is told of an adapter. Limits need not be
    the same: how far adapters violated the earlier ones is forgotten where ``names`` differ.

    Raises ConfigError for a folder that is no run of autotune, or one of another base model.
    """
    try:
        inputs = json.loads((run / "inputs.json").read_text(encoding="utf-8"))
        study = yaml.safe_load((run / "study.yaml").read_text(encoding="utf-8"))
        found_base, found_data, name = str(inputs["base"]), str(inputs["data"]), str(study["name"])
        found_names, known = read_study(run / "study.db", proposals_name(name))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__
        problem = Problem(_OPTION, str(run), f"cannot be read ({why})", "the folder of an earlier run")
        raise ConfigError([problem]) from None
    if found_base != base:
        raise ConfigError([Problem(_OPTION, str(run), f"a run of another base model ({study.get('model')})",
                                   "a run of the study's own, as adapters do not carry over")])
    comparable = found_data == data and list(names) == found_names
    return Earlier(tuple(known if comparable else [replace(k, violations={}) for k in known]), comparable)
