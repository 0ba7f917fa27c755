"""The naive side of versus_naive.py: every trial from the beginning, by our own stages, in one process.

    python benchmarks/naive_side.py JOB.json

No store, no shared template, no adapter trained once for all deploy points: for each trial the adapter is trained,
merged into the whole base as a Hugging Face folder, exported by ModelBuilder, written at the deploy point, probed
once (latency and answers), and everything is deleted. Seconds and answers go to an events file, a line each.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from autotune import answers
from autotune.config import StudyConfig, load_config
from autotune.machine_lock import MachineLock
from autotune.pipeline import stages
from autotune.pipeline.architectures import read_facts
from autotune.pipeline.template_params import template_params
from autotune.pipeline.tokens import TokenizedData
from autotune.preparation import _data_spec
from autotune.questions import Questions, Target, Workload, answers_task, latency_task, probe_request, row_order
from autotune.targets.local import run_probe
from benchmarks.adapters import merge_whole
from search_spaces.adapter import AdapterParams
from search_spaces.deploy import DeployParams

#: The most that timing an artifact may take, as a naive script waits for no quiet machine.
_TIMING_S = 30.0


@dataclasses.dataclass(frozen=True)
class Study:
    """What every trial shares, read out of the other side's study.yaml."""

    base: Path
    data_file: Path
    data: TokenizedData
    target: Target
    tasks: tuple[dict[str, Any], ...]
    order: tuple[int, ...]
    context: int
    seed: int
    threads: int


class Events:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._machine = MachineLock()

    def write(self, **fields: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    @contextmanager
    def stage(self, name: str, *, timed: bool = False) -> Iterator[None]:
        held: AbstractContextManager[None] = self._machine.measuring() if timed else self._machine.working()
        with held:
            began = time.monotonic()
            yield
        self.write(event="stage_end", stage=name, seconds=time.monotonic() - began, cached=False)


def prepare(config: StudyConfig, work: Path, events: Events) -> Study:
    """Imports and the frozen base (which stays loaded) as stage ``start``, the rows as stage ``data``."""
    base = Path(config.file.model)
    with events.stage("start"):
        import onnxruntime_genai.models.builder  # noqa: F401
        import peft  # noqa: F401

        from autotune.pipeline import point, template, train  # noqa: F401
        from autotune.pipeline.resident import frozen_base

        with frozen_base(base, "fp32"):
            pass
    with events.stage("data"):
        stages.make_data(base, work, _data_spec(config))
    data = TokenizedData.load(work / stages.DATA_FILE)
    file = config.file
    questions = Questions(file.data.max_new_tokens, file.data.stop, tuple(config.measured()), file.confidence,
                          config.base_dir, 0.0)
    at = file.target.workload
    workload = Workload(at.prompt_tokens, at.new_tokens, False, at.samples)
    order = row_order(data)
    tasks = latency_task(data, workload, questions, max_seconds=_TIMING_S), answers_task(data, questions, order)
    context = min(file.target.context_length or sys.maxsize, read_facts(base).context_length)
    target = Target(file.target.provider, file.target.provider_options, file.target.threads)
    return Study(base, work / stages.DATA_FILE, data, target, tasks, order, context, file.training.seed,
                 file.training.threads or file.target.threads)


def run_trial(study: Study, params: AdapterParams, point: DeployParams, folder: Path, events: Events) -> dict[str, Any]:
    """Accuracy and the answered labels (in the order of asking) of one trial; ``folder`` is new and goes again."""
    adapter, merged, template, made = (folder / name for name in ("adapter", "merged", "template", "point"))
    with events.stage("train"):
        adapter.mkdir(parents=True)
        stages.make_adapter(study.base, study.data_file, params, adapter, study.seed, study.threads)
    with events.stage("merge"):
        merge_whole(study.base, adapter, merged)
    with events.stage("ModelBuilder"):
        stages.make_template(merged, template, template_params(point, study.target.provider, study.context))
    with events.stage("write"):
        made.mkdir()
        stages.make_point(template, merged, made, point, study.target.provider, study.context)
    info = json.loads((made / stages.INFO_FILE).read_text(encoding="utf-8"))
    artifact = made / stages.ARTIFACT_FOLDER
    with events.stage("probe", timed=True):
        asked = probe_request(artifact, study.target, info["min_generator_length"], study.tasks)
        result = run_probe(asked, workdir=folder)
    with events.stage("delete"):
        shutil.rmtree(folder)
    right = answers.right(result, study.data, study.order)
    return {"accuracy": right / len(study.data.valid), "answers": list(result.predictions)}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work, events = Path(job["folder"]), Events(Path(job["events"]))
    study = prepare(load_config(Path(job["study"])), work, events)
    for number, trial in enumerate(job["trials"]):
        began = time.monotonic()
        point = DeployParams(**trial["point"])
        values = run_trial(study, AdapterParams(**trial["adapter"]), point, work / f"trial-{number}", events)
        events.write(event="trial", rank=trial["adapter"]["rank"], alpha=trial["adapter"]["alpha"], point=point.label,
                     seconds=time.monotonic() - began, **values)


if __name__ == "__main__":
    main()
