"""The untrained base at the highest precision: what adapters are held against, and whether its export is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.errors import ExportError, StageError, StudyError
from autotune.search.scoring import Scorer
from autotune.trials import Scored
from search_spaces.deploy import DeployParams


@dataclass(frozen=True)
class Baseline:
    """The untrained base at the highest precision, asked the same questions, and its export's agreement."""

    deploy: DeployParams
    scored: Scored
    logits: Mapping[str, Any]


def measure_baseline(scorer: Scorer, reference: DeployParams) -> Baseline:
    """Measure the untrained base at ``reference``. Raises StudyError when its export disagrees with PyTorch."""
    try:
        logits = scorer.check_reference()
        return Baseline(reference, scorer.score(None, reference), logits)
    except ExportError as error:
        raise StudyError(f"the base model does not survive its export: {error.reason}") from error
    except StageError as error:
        raise StudyError(f"the untrained base could not be measured ({error.stage}): {error.reason}") from error
