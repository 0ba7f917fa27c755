"""autotune from Python: run a study, look at a finished one. Documented by example in docs/python.md."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import ConfigError, Problem, TrackingError
from autotune.finished import FinishedRun, read_run
from autotune.report.told import VERDICTS, Verdict, exit_code, headline
from autotune.stats import Measurement

if TYPE_CHECKING:
    import pandas as pd

    from autotune.config import StudyConfig
    from autotune.tracking import Logged


@dataclass(frozen=True)
class Selected:
    """The chosen model. ``values`` are the search's, by objective key; ``certified`` those that its certificate
    measured again on the test rows and on the artifact itself, empty without a certificate.

    ``artifact`` is a folder that stock onnxruntime_genai loads; None where it is no longer on disk.
    """

    number: int
    deploy_point: str
    params: Mapping[str, Any]
    values: Mapping[str, Measurement]
    certified: Mapping[str, Measurement]
    artifact: Path | None


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder: what was tried, what came of it, and how far it can be trusted. Made by ``run`` and ``load``."""

    finished: FinishedRun

    @property
    def folder(self) -> Path:
        return self.finished.root

    @property
    def name(self) -> str:
        return self.finished.name

    @property
    def study(self) -> Mapping[str, Any]:
        """The study file, every default filled in."""
        return self.finished.study

    @property
    def exit_code(self) -> int:
        """What ``autotune run`` ends with."""
        return exit_code(self.finished.document)

    @property
    def verdict(self) -> Verdict:
        """``selected``: a model meets the limits. ``nothing fits``: none does. ``inconclusive``: whether the finalists
        do is not settled. ``failed``: no trial was completed."""
        return VERDICTS[self.exit_code]

    @property
    def selected(self) -> Selected | None:
        """The chosen model: the certificate's where there is one, else the search's."""
        if self.finished.selected is None:
            return None
        found = self.finished.trial(self.finished.selected)
        return Selected(found.number, found.deploy_point, found.params, found.values, self.finished.certified,
                        found.artifact)

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """As results.json holds it; None where none was made."""
        return self.finished.certificate

    def trials(self) -> pd.DataFrame:
        """Every trial; the columns are those of :func:`autotune.frames.trials_frame`."""
        from autotune.frames import trials_frame

        return trials_frame(self.finished)

    def front(self) -> pd.DataFrame:
        """The rows of ``trials()`` that meet the limits and that no other such trial beats in every objective."""
        return self.trials().query("on_front")

    def events(self) -> pd.DataFrame:
        """What the run did when: a row an event, ``time`` in UTC, ``seconds`` where a stage ended."""
        from autotune.frames import events_frame

        return events_frame(self.finished)

    def predictions(self, trial: int, *, certified: bool = False) -> pd.DataFrame:
        """A trial's answers to the validation rows, or with ``certified`` its certificate's to the test rows.

        Returns:
            ``reference``, ``answer`` and ``right`` by row.

        Raises:
            ConfigError: no such trial, or it has no answers on disk (it failed, or scoring was stopped early).
        """
        from autotune.frames import predictions_frame
        from autotune.predictions import path_of

        found = self.finished.trial(trial)
        path = path_of(self.folder / "predictions", trial, certified=certified)
        try:
            return predictions_frame(path)
        except FileNotFoundError:
            raise ConfigError([Problem(str(self.folder), f"predictions/{path.name}", f"not there; trial {trial} is "
                                       f"{found.state}", self._with_predictions(certified))]) from None

    def log_to_mlflow(self, uri: str, *, artifact: bool = False) -> Logged:
        """Log the run to MLflow as ``autotune run --mlflow`` does; ``artifact`` uploads the selected model too.

        Raises:
            ConfigError: MLflow is not installed, or the URI is none that it knows.
            TrackingError: MLflow did not take it; doing it again goes on from there.
        """
        from autotune.tracking import log_run, require_usable

        require_usable(uri)
        return log_run(self.finished, uri, artifact=artifact)

    def _with_predictions(self, certified: bool) -> str:
        before = "certificate-" * certified + "trial-"
        numbers = sorted(int(path.stem.removeprefix(before)) for path in
                         (self.folder / "predictions").glob(f"{before}*.csv"))
        return f"one of {', '.join(map(str, numbers))}" if numbers else "a trial with answers; this run has none"

    def __repr__(self) -> str:
        return f"<autotune.Run {self.name!r} in {self.folder}: {headline(self.finished.document)}>"

    def _repr_html_(self) -> str:
        """For notebooks: the outcome and the front."""
        objectives = [f"{key}{end}" for key, _ in self.finished.objectives for end in ("", ".low", ".high")]
        table = self.front()[["deploy_point", *objectives, "tied_with"]].to_html(
            border=0, escape=True, na_rep="", float_format="{:.4g}".format) if self.finished.front else ""
        return (f"<p><b>{html.escape(self.name)}</b> ({html.escape(self.verdict)}): "
                f"{html.escape(headline(self.finished.document))}</p>{table}")


def run(
    study: str | os.PathLike[str] | Mapping[str, Any], out: str | os.PathLike[str] | None = None, *,
    base_dir: str | os.PathLike[str] | None = None, store: str | os.PathLike[str] | None = None,
    trials: int | None = None, timeout: str | None = None, quiet: bool = False,
    warm_start: str | os.PathLike[str] | None = None, mlflow: str | None = None,
    mlflow_artifacts: bool = False,
) -> Run:
    """Search, or go on with a search, as the command ``autotune run`` does.

    Args:
        study: a study.yaml, or what one holds as a mapping.
        out: the run folder, ``runs/NAME`` by default; an existing one is resumed.
        base_dir: what relative paths of a mapping are relative to; the working directory by default.
        store: where made stages are kept and shared; ``$AUTOTUNE_STORE`` or a cache folder by default.
        trials: stop after this many.
        timeout: stop after this long: ``90s``, ``30m``, ``1h30m``.
        warm_start: folder of an earlier run of the same base model, whose best adapters come first.
        quiet: print nothing.
        mlflow: a tracking URI to log to in the end; one that does not answer is warned of and loses nothing.
        mlflow_artifacts: upload the selected model there too.

    Raises:
        InputError: with everything that is wrong in what was given.
        StudyError: the study as a whole cannot go on.
    """
    from autotune.options import resolve_options

    config = _config(study, base_dir)
    options = resolve_options(config, _path(out), _path(store), trials, timeout, silent=quiet,
                              warm_start=_path(warm_start))
    if mlflow:
        from autotune.tracking import require_usable

        require_usable(mlflow)
    from autotune.run_study import run_study

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries' warnings are for us, not for who runs a study
        run_study(config, options)
    found = load(options.out)
    if mlflow:
        try:
            found.log_to_mlflow(mlflow, artifact=mlflow_artifacts)
        except TrackingError as error:
            warnings.warn(f"{error} The study is whole; Run.log_to_mlflow logs it later.", stacklevel=2)
    return found


def load(run_folder: str | os.PathLike[str]) -> Run:
    """A run folder, finished, or interrupted after its first trial.

    Raises:
        ConfigError: there is no run, or its results.json is damaged or of another schema.
    """
    return Run(read_run(Path(run_folder)))


def _config(study: str | os.PathLike[str] | Mapping[str, Any], base_dir: str | os.PathLike[str] | None) -> StudyConfig:
    from autotune.config import load_config, resolve_config

    if isinstance(study, Mapping):
        return resolve_config(study, "study", Path(base_dir or ".").resolve())
    if base_dir is not None:
        raise ConfigError([Problem(str(study), "base_dir", "given for a file",
                                   "for a mapping alone; a file's paths are relative to the file")])
    return load_config(Path(study))


def _path(given: str | os.PathLike[str] | None) -> Path | None:
    return None if given is None else Path(given)
