"""README.md of a bundle: a model card in the Hugging Face format."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from importlib import resources
from typing import Any

from autotune.bundle.choice import Chosen
from autotune.finished import measurement
from autotune.report.wording import show, with_unit
from objectives.base import is_answers
from objectives.templates import template_columns

#: Licences by the names that the hub knows, of those that base models bear; any other is ``other`` with its own name.
_HUB_LICENCES = {
    "apache-2.0", "mit", "gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "bsd-3-clause",
    "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail", "bigscience-openrail-m", "gpl-3.0",
}
_MOST_LABELS = 20
#: What may begin a link, an emphasis, a table cell, a formula or a mention.
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$@])")
#: What is made a link although nothing marks it as one.
_BARE_LINK = re.compile(r"(?i)(:(?=//)|\bwww(?=\.))")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def card(chosen: Chosen, document: Mapping[str, Any]) -> str:
    """The whole file: front matter for the hub, and the body. Text from the study stays text."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(**_front_matter(chosen, document))
    return f"---\n{data.to_yaml()}\n---\n\n{_body(chosen, document)}"


def escape(value: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = " ".join(str(value).split())
    marked = _MARKDOWN.sub(r"\\\1", "".join(_HTML.get(c, c) for c in text))
    return _BARE_LINK.sub(r"\1\\", marked)


def _front_matter(chosen: Chosen, document: Mapping[str, Any]) -> dict[str, Any]:
    base, task = document["base_model"], document["task"]["kind"]
    kind = "text-classification" if task == "choice" else "text-generation"
    found: dict[str, Any] = {
        "library_name": "onnxruntime-genai", "pipeline_tag": kind,
        "tags": ["onnx", "onnxruntime-genai", "lora", "autotune", document["params"]["precision"]],
        "model_name": f"{chosen.run.name}-trial-{chosen.trial.number}",
        "eval_results": _eval_results(chosen, document, kind), **_licence(base["licence"]["name"]),
    }
    if base.get("kind") == "hub":  # the hub refuses any other name here
        found["base_model"] = base["name"]
        quantized = document["params"]["precision"] in ("int4", "int8")
        found["base_model_relation"] = "quantized" if quantized else "finetune"
    return found


def _licence(name: str | None) -> dict[str, str]:
    if name is None:
        return {"license": "unknown"}
    known = name.lower()
    return {"license": known} if known in _HUB_LICENCES else {"license": "other", "license_name": name}


def _eval_results(chosen: Chosen, document: Mapping[str, Any], kind: str) -> list[Any]:
    from huggingface_hub import EvalResult

    split = "test" if chosen.look else "validation"
    return [
        EvalResult(task_type=kind, dataset_type=chosen.run.name, dataset_name=f"{chosen.run.name} ({split} rows)",
                   metric_type=key, metric_value=value["value"],
                   metric_name=f"{key}{f' ({unit})' if (unit := value['unit']) else ''}")
        for key, value in document["measurements"].items() if _shown(key, chosen)
    ]


def _shown(key: str, chosen: Chosen) -> bool:
    """What the study asked for, and what the answers are measured by."""
    return key in chosen.run.asked or is_answers(key)


def _body(chosen: Chosen, document: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
        finalize=lambda value: value if isinstance(value, Markup) else escape(value))
    environment.filters["code"] = lambda value: Markup(" ".join(str(value).split()).replace("`", "'"))
    text = resources.files("autotune.bundle").joinpath("card.md.j2").read_text("utf-8")
    return re.sub(r"\n{3,}", "\n\n", environment.from_string(text).render(_context(chosen, document)))


def _context(chosen: Chosen, document: Mapping[str, Any]) -> dict[str, Any]:
    certificate, target, measured = document["certificate"], document["target"], document["measured_with"]
    labels, study, licence = document["task"]["labels"], document["study"], document["base_model"]["licence"]
    about = certificate is not None and certificate["trial"] == chosen.trial.number
    revision = document["base_model"].get("revision")
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    return {
        "name": f"{chosen.run.name}, trial {chosen.trial.number}", "deploy_point": chosen.trial.deploy_point,
        "label_count": len(labels), "labels": ", ".join(labels[:_MOST_LABELS]) + more,
        "base_model": document["base_model"]["id"] + (f", revision {revision}" if revision else ""),
        "licence": f"{licence['name'] or 'not known'} ({licence['source']})",
        "study": f"{study['name']}, configuration {study['config_sha256']}", "trial": chosen.trial.number,
        "certified": chosen.certified, "sentences": certificate.get("text", []) if about else [],
        "uncertified": _uncertified(chosen),
        "rows": [_row(key, value) for key, value in document["measurements"].items()],
        "cpu": measured["machine"].get("cpu") or "a processor that did not tell its name",
        "libraries": ", ".join(f"{name} {version}" for name, version in measured["versions"].items() if version),
        "confidence": chosen.look["confidence"] if chosen.look else document["confidence"],
        "threads": f"{target['threads']} thread{'s' * (target['threads'] != 1)}", "provider": target["provider"],
        "context_length": target["context_length"], "example": _example(document["task"]["prompt"]),
        "samples": document["samples"], "split": "test" if chosen.look else "validation",
        "adapter": document["adapter"], "constraints": ", ".join(c["expr"] for c in document["constraints"]),
    }


def _uncertified(chosen: Chosen) -> str:
    found = chosen.run.certificate
    if found is None:
        return "The figures are those of the search, which picks by them, and so partly by luck."
    if found["trial"] == chosen.trial.number:
        return "Measured again on rows that the search never saw, it was not settled whether its limits hold:"
    if chosen.look is None:
        return "The certificate of its run is of another trial; these figures are those of the search."
    broken = [f"{c['expr']} ({c['verdict'].lower()})" for c in chosen.look["constraints"] if c["verdict"] != "PASS"]
    return f"Measured again on rows that the search never saw, it was passed over for {', '.join(broken)}."


def _row(key: str, value: Mapping[str, Any]) -> dict[str, Any]:
    found = measurement(value, value["unit"])
    shown = show(found, True).partition(" ")
    return {"key": key, "value": shown[0] + with_unit(found.unit), "interval": shown[2] or "–", "n": found.n,
            "measured_on": f"{value['measured_on']}, {value['tier']}"}


def _example(template: str) -> str:
    columns = template_columns(template)
    if len(columns) == 1:
        return '"some text"'
    return " ".join(f"--column {shlex.quote(f'{name}=some text')}" for name in columns)
