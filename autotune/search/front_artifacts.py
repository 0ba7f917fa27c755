"""The artifacts of trials that may still be chosen: on disk, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.errors import StageError
from autotune.report.outcome import Outcome
from autotune.report.terminal import Terminal
from autotune.run_folder import RunFolder
from autotune.search.scoring import Scorer
from autotune.storage.store import Entry
from autotune.trials import TrialRecord
from search_spaces.adapter import AdapterParams


class FrontArtifacts:
    """``records`` and ``outcome`` tell the trials as they are when asked; ``adapter`` gives a trained adapter."""

    def __init__(
        self, scorer: Scorer, folder: RunFolder, terminal: Terminal, records: Callable[[], Sequence[TrialRecord]],
        outcome: Callable[[], Outcome], adapter: Callable[[AdapterParams], Entry],
    ) -> None:
        self._scorer, self._folder, self._terminal = scorer, folder, terminal
        self._records, self._outcome, self._adapter = records, outcome, adapter

    def keep(self) -> dict[int, str]:
        """The front's artifacts into the run folder, every other one off the disk; number → folder name."""
        self.drop_others()
        wanted, kept = self._wanted(), {}
        for record in self._records():
            if record.number not in wanted:
                continue
            name = f"trial-{record.number}"
            try:
                if not (self._folder.artifacts / name).exists():
                    self._scorer.keep(self._adapter(record.adapter), record.deploy, name)
                kept[record.number] = name
            except StageError as error:
                self._terminal.warn(f"the artifact of trial {record.number} could not be kept: {error.reason}")
        return kept

    def kept(self) -> dict[int, str]:
        """The artifacts that lie in the run folder already; number → folder name."""
        names = {r.number: f"trial-{r.number}" for r in self._records()}
        return {number: name for number, name in names.items() if (self._folder.artifacts / name).exists()}

    def drop_others(self) -> None:
        """Only artifacts that may still be chosen keep their disk."""
        wanted = self._wanted()
        for record in self._records():
            if record.state == "COMPLETE" and record.artifact and record.number not in wanted:
                self._scorer.forget(record.artifact, f"trial-{record.number}")

    def _wanted(self) -> set[int]:
        """The trials whose artifacts may still be chosen."""
        outcome = self._outcome()
        return set(outcome.front) | ({outcome.miss.trial} if outcome.miss else set())
