"""What adapters and relative limits are held against: the untrained base, and the adapters at the highest precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.errors import ExportError, StageError, StudyError
from autotune.search.crew import Piece
from autotune.search.limits import Limits
from autotune.search.proposals import Proposals
from autotune.search.rungs import AdapterState
from autotune.search.scoring import Scorer
from autotune.storage.store import Entry
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


class TunedBaseline:
    """The adapters at the highest precision, where limits are relative to the best one there."""

    def __init__(
        self, scorer: Scorer, reference: DeployParams, limits: Limits, proposals: Proposals, keys: Sequence[str]
    ) -> None:
        """Begins with what earlier processes noted in ``proposals``; people see the values of ``keys``."""
        self._scorer, self._reference, self._limits = scorer, reference, limits
        self._proposals, self._keys = proposals, keys
        known = proposals.baselines()
        for params, values in known:
            limits.learn_tuned(params, values)
        self._noted = {params for params, _ in known}

    def learn(self, adapter: AdapterState, entry: Entry) -> Piece:
        """Score the adapter, trained as ``entry``, if some limit needs it and it was not scored yet. Raises StageError;
        StudyError when the baseline has no value that a limit is relative to."""
        params = adapter.params
        if self._limits.need_tuned and params not in self._noted:
            scored = yield lambda: self._scorer.score(entry, self._reference)
            if params not in self._noted:  # another of its trials may have noted it meanwhile
                values = {key: m.value for key, m in scored.values.items()}
                self._proposals.note_baseline(self._proposals.trial(adapter.number), values, self._keys)
                self._limits.learn_tuned(params, values)
                self._noted.add(params)
        if unresolved := self._limits.unresolved():
            raise StudyError(f"{unresolved}: the baseline has no such value, so the limit cannot be held")
