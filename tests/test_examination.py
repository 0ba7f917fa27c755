"""A bundle examined on this device: what passes, fails and settles nothing, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path

from tests import bundles
from tests.bundles import manifest_of, on_device, rows_of


def test_the_report_reads_as_text() -> None:
    done = on_device(bundles.bundle(), "verify.py", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "48 of 48 sample rows are answered as when measured" in done.stdout
    assert "latency_ms.p95 <= 2000: was not measured (--quick)" in done.stdout
    assert "PASS: everything that was judged holds on this device. Left out: latency" in done.stdout


def test_answers_that_turned_out_otherwise_fail(tmp_path: Path) -> None:
    """Sample rows that claim other answers: as if this device gave others than the one that was measured."""
    folder = bundles.copied(tmp_path / "bundle")
    turned = {"joy": "fear", "fear": "sadness", "sadness": "joy"}
    claimed = [{**row, "answer": turned[row["answer"]], "expected": turned[row["answer"]]} for row in rows_of(folder)]
    done = on_device(bundles.resealed(folder, claimed), "verify.py", "--quick")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 48 sample rows are answered as when measured" in done.stdout
    assert "0 of 48 are right here, 48 were" in done.stdout
    assert "FAIL: not on this device: the answers." in done.stdout


def test_answers_that_settle_nothing_end_with_exit_4(tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "bundle")
    done = on_device(bundles.resealed(folder, rows_of(folder)[:12]), "verify.py", "--quick", "--json")
    assert done.returncode == 4, done.stdout + done.stderr
    assert json.loads(done.stdout)["answers"]["verdict"] == "INCONCLUSIVE"


def test_a_limit_that_this_device_does_not_hold_fails(tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "bundle")
    limits = [{"expr": f"{key} <= {bound:g}", "objective": key, "op": "<=", "bound": bound, "baseline": None}
              for key, bound in (("latency_ms.p50", 0.001), ("peak_rss_mb", 1.0), ("load_ms", 1e6))]
    done = on_device(bundles.resealed(folder, rows_of(folder), constraints=limits), "verify.py", "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = {limit["expr"]: limit for limit in json.loads(done.stdout)["limits"]}
    latency, memory, load = (limit["verdict"] for limit in found.values())
    assert (memory, load) == ("FAIL", "PASS")
    assert latency in ("FAIL", "INCONCLUSIVE")  # the latter where the machine was busy
    assert found["peak_rss_mb <= 1"]["n"] == 6


def test_a_model_that_generates_is_asked_and_checked_alike(tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "bundle")
    manifest = manifest_of(folder)
    changes = {"task": {**manifest["task"], "kind": "generate", "prompt": "{a}: {b c}", "labels": [], "label_ids": [],
                        "max_new_tokens": 6},
               "workload": {**manifest["workload"], "prompt_tokens": None, "new_tokens": 6}}
    bundles.resealed(folder, rows_of(folder), **changes)
    done = on_device(folder, "run.py", "--json", "--column", "a=sun", "--column", "b c=sing = cake")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["answer"]
    rows = [{"row": i, "prompt": "sun: sing = cake", "expected": "x", "answer": answer} for i in range(30)]
    checked = on_device(bundles.resealed(folder, rows, **changes), "verify.py", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["answers"]["agree"] == 30
    missing = on_device(folder, "run.py", "--column", "b=x", "plain")
    assert missing.returncode == 2
    assert "--column 'b=x' names no column" in missing.stderr
    assert "accepted: --column a=VALUE --column 'b c=VALUE'" in missing.stderr


def test_a_manifest_that_lacks_something_is_no_traceback(tmp_path: Path) -> None:
    folder = bundles.copied(tmp_path / "bundle")
    done = on_device(bundles.resealed(folder, [], task={"kind": "choice"}), "verify.py")
    assert done.returncode == 1
    assert "manifest.json lacks something or is damaged: KeyError 'prompt'" in done.stdout
    asked = on_device(folder, "run.py", "x")
    assert (asked.returncode, "KeyError 'prompt'" in asked.stderr) == (1, True)
