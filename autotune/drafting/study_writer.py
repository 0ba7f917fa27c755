"""A study.yaml with every key, commented; what is left at its default stands there commented out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from autotune.pipeline.tokens import Task

_COMMENT_AT = 48
#: Of what is tried.
PRESET = "quick"
#: So many labels are written out; of more, the training rows tell.
LABELS_SHOWN = 40
_EXACT = "accuracy", "exact_match"


@dataclass(frozen=True)
class FirstLook:
    """How many ``steps`` of ``batch_size`` rows an adapter trains, where the preset's ``epochs`` would be many more:
    ``epochs_steps``."""

    steps: int
    batch_size: int
    epochs: float
    epochs_steps: int


@dataclass(frozen=True)
class Draft:
    """What a new study says. ``files`` are by split, as the study file names them; ``rows`` count theirs.

    ``labels`` are label and share of the rows, the most frequent first, empty for task ``generate``. The token
    counts are estimates; ``max_tokens`` is None where the default is enough, ``first_look`` where the preset's own
    epochs are.
    """

    name: str
    model: str
    files: Mapping[str, str]
    rows: Mapping[str, int]
    prompt: str
    answer: str
    task: Task
    labels: Sequence[tuple[str, float]]
    constraints: Sequence[str]
    threads: int
    prompt_tokens: int
    answer_tokens: int
    max_tokens: int | None
    first_look: FirstLook | None = None


Line = tuple[str, str]


def study_text(draft: Draft) -> str:
    """The file. It holds to the study file's model, whatever the texts in ``draft`` are."""
    lines = [*_head(draft), *_data(draft), *_target(draft), *_devices(draft), *_search(draft), *_rest()]
    return "\n".join(_aligned(text, comment) for text, comment in lines) + "\n"


def _head(draft: Draft) -> Iterator[Line]:
    yield "", "autotune run checks every key; paths are relative to this file"
    yield f"name: {scalar(draft.name)}", "of the run folder, runs/NAME, unless --out is given"
    yield f"model: {scalar(draft.model)}", "or org/name on the hub, a folder, a .gguf file, package:NAME"


def _data(draft: Draft) -> Iterator[Line]:
    yield "data:", ""
    uses = {"train": "trained on", "valid": "searched on", "test": "asked by the certificate alone"}
    for split, use in uses.items():
        if split in draft.files:
            yield f"  {split}: {scalar(draft.files[split])}", f"{draft.rows[split]} rows, {use}"
        else:
            yield f"  # {split}: {split}.jsonl", f"not given: 15 % of train, {use}"
    yield f"  prompt: {quoted(draft.prompt)}", "{column} for a column, {{ for a brace"
    yield f"  answer: {quoted(draft.answer)}", ""
    yield "  # chat: true", "the prompt as a user's message in the model's own chat template"
    yield f"  task: {draft.task}", ("one of a closed set of labels; else generate" if draft.task == "choice" else
                                   "free text; choice is for one of a closed set of labels")
    yield from _labels(draft) if draft.task == "choice" else _generation(draft)
    longest = "tokens of prompt and answer together; a longer row is an error"
    yield (f"  max_tokens: {draft.max_tokens}" if draft.max_tokens else "  # max_tokens: 1024"), longest


def _labels(draft: Draft) -> Iterator[Line]:
    if len(draft.labels) > LABELS_SHOWN:
        first = ", ".join(label for label, _ in draft.labels[:5])
        yield "  # labels: [one, another]", f"inferred from the training rows: {len(draft.labels)}, such as {first}"
        return
    yield "  labels:", "of all rows; without this key, those of the training rows"
    for label, share in draft.labels:
        yield f"    - {scalar(label)}", f"{share:.1%} of the rows"


def _generation(draft: Draft) -> Iterator[Line]:
    yield f"  max_new_tokens: {draft.answer_tokens}", "99 % of the answers seem to be shorter; a longer one is cut"
    yield '  # stop: ["\\n"]', "texts that end an answer, beside the end of sequence"


def _target(draft: Draft) -> Iterator[Line]:
    yield "target:", ""
    yield "  provider: cpu", "execution provider: cpu, cuda, dml"
    yield "  # provider_options: {}", "ONNX Runtime's own options of it, texts"
    yield f"  threads: {draft.threads}", "the cores of the device that the model will have"
    yield "  # host: local", "where it is measured; or ssh://pi@kiosk, if need be with python: the interpreter there"
    if draft.task == "choice":
        yield "  workload:", "what latency is measured on; or {from: valid}, the rows' own prompts"
        yield f"    prompt_tokens: {draft.prompt_tokens}", "about as many as the median row has"
        yield f"    new_tokens: {draft.answer_tokens}", "about as many as the longest label has"
        yield "    # samples: 20", "undisturbed requests to time"
    else:
        yield "  workload:", "what latency is measured on; or {prompt_tokens: 64, new_tokens: 16}"
        yield "    from: valid", "the validation rows' own prompts and answers"
        yield "    # samples: 20", "undisturbed requests to time"
    yield "  # context_length: 2048", "prompt and answer that the model must hold; default: what the rows need"


def _devices(draft: Draft) -> Iterator[Line]:
    yield f"# devices: {{pi: {{host: ssh://pi@kiosk, threads: {draft.threads}}}}}", (
        "measured too: latency_ms.p95@pi in limits and objectives; also takes python, provider, provider_options")


def _search(draft: Draft) -> Iterator[Line]:
    metric = _EXACT[draft.task == "generate"]
    yield from _space(draft)
    other = ("; also macro_f1" if draft.task == "choice" else
             "; for long answers evaluate:NAME, module:function")
    yield f"objectives: [{metric}, latency_ms.p50, size_mb]", f"what is weighed{other}"
    hints = [f"{metric} >= 0.97 * baseline", "latency_ms.p95 <= 500", "size_mb <= 500", "peak_rss_mb <= 1500"]
    yield from _limits(draft.constraints, hints)
    yield "budget:", "whichever ends first"
    yield "  adapters: 4", "trained; autotune run STUDY --dry-run says how long it takes"
    yield "  # trials: 20", "adapters times deploy points"
    yield "  # time: 1h", ""
    yield "# policy: most-accurate", "which model of the front is chosen: or fastest, smallest, knee"


def _space(draft: Draft) -> Iterator[Line]:
    what = "what is tried: quick, edge-cpu, full, gpu, or adapter: and deploy: inline"
    if (look := draft.first_look) is None:
        yield f"space: {PRESET}", what
        return
    yield "space:", what
    yield f"  preset: {PRESET}", "what stands below replaces the preset's own"
    yield "  adapter:", ""
    yield (f"    steps: {look.steps}",
           f"of {look.batch_size} rows; for a first look: epochs: {look.epochs:g} would be {look.epochs_steps}")


def _limits(expressions: Sequence[str], hints: Sequence[str]) -> Iterator[Line]:
    what = "the limits that the chosen model must hold"
    if not expressions:
        yield f"# constraints: [{', '.join(hints[:2])}]", what
        return
    yield "constraints:", what
    for expression in expressions:
        yield f"  - {scalar(expression)}", ""
    for hint in hints:
        if not any(e.split()[0] == hint.split()[0] for e in expressions):
            yield f"  # - {scalar(hint)}", ""


def _rest() -> Iterator[Line]:
    yield "# baseline: tuned", "of relative limits: the best adapter, or base, the untrained model"
    yield "# confidence: 0.95", "level of the intervals"
    yield "# seed: 0", "of the search"
    yield "# early_stop_error: 0.002", "chance that stopping a trial early may be wrong; 0 scores every row"
    yield "# training: {seed: 0, threads: 2}", "of training, not of the target"
    yield "# rungs: [0.2, 0.4, 1]", "shares of its steps at which an adapter is judged, and may be stopped"
    yield "# certificate: {finalists: 3, time: 5m, sustain: 1m}", "measured again at the end; finalists: 0 for none"
    yield "# repeats: {adapters: 3, seeds: 3}", "the best adapters trained with other seeds too: how much is luck"
    yield "# workers: local", "or ray, for several at a time, on this machine or a cluster"
    yield "# storage: postgresql://me@host/studies", "a shared database; default: study.db in the run folder"
    yield "# store: /mnt/shared/autotune", "where made stages are kept: a folder, or a URL such as s3://"


def _aligned(text: str, comment: str) -> str:
    if not comment:
        return text
    return f"{text:<{_COMMENT_AT - 2}}  # {printable(comment)}" if text else f"# {printable(comment)}"


def scalar(text: str) -> str:
    """A text as YAML, in quotes where it needs them."""
    plain = yaml.safe_dump(text, allow_unicode=True, width=10**9).removesuffix("\n").removesuffix("\n...")
    return plain if plain.isprintable() else quoted(text)


def quoted(text: str) -> str:
    """A text as YAML in double quotes, on one line."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9).rstrip("\n")


def printable(text: str) -> str:
    """A text that can stand in a comment or on a line of the terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
