"""The model card: read back by the hub's own library, and text of the study stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from autotune.bundle.card import card, escape
from autotune.bundle.choice import Chosen, choose
from autotune.bundle.document import document
from autotune.bundle.licence import Licence
from autotune.bundle.samples import Samples
from autotune.deployment import deployment
from autotune.finished import read_run
from autotune.storage.store import Store
from tests import bundles

HOSTILE = "joy | <script>alert(1)</script> [x](https://evil.example) **bold**\n\n# heading `code`"


@pytest.fixture
def chosen(tmp_path: Path) -> Chosen:
    return choose(read_run(bundles.written(tmp_path)), None)


def told(chosen: Chosen, tmp_path: Path, licence: str | None = None, **changes: Any) -> str:
    found = deployment(chosen.run, Store(tmp_path / "store"))
    samples = Samples(("{}",) * 40, 40, "valid")
    return card(chosen, {**document(chosen, found, samples, Licence(licence, "somewhere"), adapter=False), **changes})


def test_the_hubs_library_reads_it_back(chosen: Chosen, tmp_path: Path) -> None:
    data = ModelCard(told(chosen, tmp_path, "Apache-2.0")).data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "apache-2.0", "onnxruntime-genai", "text-classification")
    (result,) = data["model-index"]
    metrics = {m["type"]: m["value"] for m in result["results"][0]["metrics"]}
    assert metrics["accuracy"] == 0.75
    assert {"latency_ms.p50", "latency_ms.p95", "size_mb"} <= set(metrics)
    assert "ttft_ms.p50" not in metrics


@pytest.mark.parametrize(("name", "front_matter"), [
    (None, {"license": "unknown"}), ("Our: terms", {"license": "other", "license_name": "Our: terms"}),
])
def test_a_licence_that_the_hub_does_not_know_is_named(
    chosen: Chosen, tmp_path: Path, name: str | None, front_matter: dict[str, str]
) -> None:
    data = ModelCard(told(chosen, tmp_path, name)).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == front_matter


def test_only_a_hub_model_stands_as_the_base(chosen: Chosen, tmp_path: Path) -> None:
    licence = {"name": None, "source": "nowhere"}
    assert "base_model" not in ModelCard(told(chosen, tmp_path)).data.to_dict()
    base = {"id": "org/name@main", "kind": "hub", "name": "org/name", "revision": "0" * 40, "licence": licence}
    text = told(chosen, tmp_path, base_model=base)
    assert ModelCard(text).data.to_dict()["base_model"] == "org/name"
    assert "org/name\\@main, revision 0000" in text


def test_a_hostile_label_stays_text(chosen: Chosen, tmp_path: Path) -> None:
    text = told(chosen, tmp_path, task=bundles.task(labels=[HOSTILE, "fear"], prompt="{a`b\n```}: {c}"))
    assert "<script" not in text
    assert "https://evil" not in text
    assert "\n# heading" not in text
    assert r"joy \| &lt;script&gt;alert(1)&lt;/script&gt; \[x\](https:\//evil.example) \*\*bold\*\* \# heading" in text
    assert text.count("```") == 6  # three fenced blocks


def test_markdown_shows_escaped_text_as_it_was(chosen: Chosen) -> None:
    assert escape("plain 0.75 (n = 3), trial-2") == "plain 0.75 (n = 3), trial-2"
    assert escape("a\nb  c") == "a b c"
    assert escape("www.x.org me@x.org") == r"www\.x.org me\@x.org"


def test_without_a_certificate_it_says_so(chosen: Chosen, tmp_path: Path) -> None:
    text = told(chosen, tmp_path)
    assert "**This artifact is not certified.**" in text
    assert "What is certified" not in text
    assert "40 of the study's validation rows" in text


def test_without_sample_rows_it_says_so(chosen: Chosen, tmp_path: Path) -> None:
    text = told(chosen, tmp_path, samples={"count": 0, "of": None, "split": "valid"})
    assert "No row of the study's data is in this bundle." in text
    assert "made without sample rows" in text


def test_the_certificates_sentences_stand_in_it() -> None:
    text = (bundles.bundle() / "README.md").read_text(encoding="utf-8")
    assert "## What is certified" in text
    assert "Certified: trial 0 (int8-b32). On 48 rows that the search never saw" in text
    assert "python run.py \"some text\"" in text
    assert ModelCard(text).data.to_dict()["model-index"][0]["name"] == "tiny-trial-0"
