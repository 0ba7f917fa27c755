"""The comparison with Olive is fair and reads both sides right; Olive itself is not needed here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.config import resolve_config
from autotune.pipeline.recipe import schedule
from benchmarks import grid, olive_environment, olive_parts, olive_side, versus_olive
from objectives.accuracy import build_trie
from objectives.accuracy import choose as our_choice
from tests import tiny


def arguments(model: Path, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"model": model, "adapters": 4, "points": 4, "steps": 3, "batch": 2, "threads": 1,
                                 **changes})


@pytest.mark.parametrize("adapters", [1, 2, 4])
def test_our_study_holds_exactly_the_grid_that_olive_gets(tmp_path: Path, adapters: int) -> None:
    args = arguments(tiny.make_model(tmp_path / "model"), adapters=adapters)
    grid.write_rows([grid.TONE / "valid.jsonl"], tmp_path, 8, 8)
    config = resolve_config(grid.study(args), "study.yaml", tmp_path)
    assert [point.label for point in config.space.deploy] == list(grid.POINTS)
    assert config.space.adapter_count() == adapters
    ranks, alphas = (config.space.adapter[name].values for name in ("rank", "alpha"))
    assert {(r, a) for r in ranks for a in alphas} == set(grid.ADAPTERS[:adapters])


@pytest.mark.parametrize("way", ["defaults", "tuned"])
def test_olive_trains_by_our_recipe(way: str) -> None:
    job = {"steps": 40, "batch": 2, "learning_rate": 5e-4, "way": way}
    found = olive_side.lora_pass(job, 8, 16)["training_args"]
    assert (found["max_steps"], found["per_device_train_batch_size"], found["learning_rate"]) == (40, 2, 5e-4)
    warmup = found["warmup_steps"]
    its = [i / warmup if i < warmup else (40 - i) / (40 - warmup) for i in range(40)]  # transformers' linear schedule
    ours = [schedule(step, 40, 2) for step in range(1, 41)]
    assert its[1:] == pytest.approx(ours[1:])


def job(tmp_path: Path, way: str, **changes: Any) -> dict[str, Any]:
    return {"model": "m", "folder": str(tmp_path), "train": "t", "valid": "v", "prompt": grid.PROMPT, "threads": 1,
            "answer": grid.ANSWER, "labels": grid.LABELS, "way": way, "loss": "text", "steps": 1, "batch": 1,
            "learning_rate": 1e-4, "questions": "q", "adapters": grid.ADAPTERS,
            "points": [point for _, point in grid.POINTS.values()], **changes}


@pytest.mark.parametrize("way", ["defaults", "tuned"])
def test_every_setting_that_olive_would_search_over_is_given(tmp_path: Path, way: str) -> None:
    workflow = olive_side.run_config(job(tmp_path, way), "", "<eos>")
    for point in workflow["passes"]["build"]:
        assert {"int4_block_size", "int4_is_symmetric", "int4_algo_config"} <= point.keys()
    assert [(p["r"], p["alpha"]) for p in workflow["passes"]["lora"]] == list(grid.ADAPTERS)


def test_defaults_change_no_setting_in_our_favour_and_tuned_ones_are_in_its_own(tmp_path: Path) -> None:
    plain, tuned = (olive_side.run_config(job(tmp_path, way), "<bos>", "<eos>") for way in ("defaults", "tuned"))
    arguments = [w["passes"]["lora"][0]["training_args"] for w in (plain, tuned)]
    assert "gradient_checkpointing" not in arguments[0]
    assert arguments[1]["gradient_checkpointing"] is False
    assert "extra_options" not in plain["passes"]["build"][0]
    assert tuned["passes"]["build"][0]["extra_options"]["prune_lm_head"] is True
    assert plain["data_configs"] == tuned["data_configs"]  # the texts are the same, unpadded
    assert plain["data_configs"][0]["pre_process_data_config"]["pad_to_max_len"] is False


def test_both_evaluators_ask_the_same_question(tmp_path: Path) -> None:
    (task,) = olive_side.lm_evaluator(job(tmp_path, "defaults"), "<bos>")["tasks"]
    assert task["doc_to_text"] == "<bos>### Text: {{phrase}}\n### The tone is:\n"
    assert task["doc_to_target"] == "{{tone}}"
    assert tuple(task["doc_to_choice"]) == grid.LABELS


class Scripted:
    """A generator whose next-token logits depend on the tokens so far, as a model's do."""

    def __init__(self, seed: int) -> None:
        self._seed, self._tokens = seed, []

    def append_tokens(self, ids: Any) -> None:
        self._tokens += [int(i) for i in ids]

    def get_logits(self) -> Any:
        return np.random.default_rng([self._seed, *self._tokens]).normal(size=(1, 1, 12)).astype(np.float32)


def test_both_sides_choose_the_same_label(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, eos = [[3], [3, 4], [3, 4, 5], [6, 7], [8]], 1
    for seed in range(60):
        made = Scripted(seed)
        monkeypatch.setattr("objectives.accuracy.new_generator", lambda *_, made=made: made)
        expected = our_choice(None, [9, 10], build_trie(labels, eos))
        ended = [[*label, eos] for label in labels]
        assert olive_parts.choose(lambda _, seed=seed: Scripted(seed), [9, 10], ended) == expected


def test_an_accuracy_is_traced_back_to_its_adapter_and_point() -> None:
    events: list[dict[str, Any]] = [{"stage": "evaluate input", "id": "base", "seconds": 1.0, "accuracy": 0.1}]
    for rank, alpha in ((8, 16), (16, 16)):
        for label in ("fp32", "int4-b128"):
            lora, merged, built = f"l{rank}", f"m{rank}", f"b{rank}{label}"
            settings = {**grid.POINTS[label][1], "int4_is_symmetric": True}
            again = label != "fp32"
            events += [
                {"stage": "lora", "id": lora, "parent": "base", "seconds": 2.0, "cached": again, "failed": False,
                 "settings": {"r": rank, "alpha": float(alpha)}},
                {"stage": "merge", "id": merged, "parent": lora, "seconds": 1.0, "cached": again, "failed": False},
                {"stage": "build", "id": built, "parent": merged, "seconds": 1.0, "cached": False, "failed": False,
                 "settings": settings},
                {"stage": "evaluate", "id": built, "seconds": 1.0, "accuracy": rank + len(label) / 100},
            ]
    found = versus_olive.olive_accuracy(events, list(grid.POINTS))
    assert found == {(r, 16.0, p): r + len(p) / 100 for r in (8, 16) for p in ("fp32", "int4-b128")}
    seconds, counts = grid.stage_sums(versus_olive.olive_stages(events))
    assert (seconds["lora"], counts["lora"], counts["build"]) == (4.0, 2, 4)


def test_the_quotient_is_told_without_the_input_s_evaluation_and_listings_and_nothing_is_taken_off_twice() -> None:
    events = [{"stage": olive_side.LISTING, "seconds": 5.0}, {"stage": "evaluate input", "seconds": 20.0},
              {"stage": "lora", "seconds": 30.0, "cached": False},
              {"stage": olive_side.LISTING, "seconds": 4.0}, {"stage": "evaluate", "seconds": 10.0}]
    sums = grid.stage_sums(versus_olive.olive_stages(events))
    olive, ours = grid.Side(64.0, 0, 0.0, {}, *sums), grid.Side(10.0, 0, 0.0, {}, {}, {})
    (line,) = versus_olive.apart(olive, ours)
    assert line.endswith(" is 4.00.")
    assert versus_olive.apart(grid.Side(64.0, 0, 0.0, {}, {"lora": 1.0}, {"lora": 1}), ours) == []


def test_weights_that_a_session_may_still_map_are_replaced_not_cut(tmp_path: Path) -> None:
    weights = tmp_path / "model.onnx.data"
    weights.write_bytes(b"weights")
    with weights.open("rb") as held:
        olive_side.empty(tmp_path / "model.onnx")
        assert held.read() == b"weights"
    assert weights.read_bytes() == b""


def test_a_folder_that_transformers_5_wrote_is_translated(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", "gemma3")
    before = (model / "config.json").read_bytes()
    folder = olive_environment.translate_model(model, tmp_path / "translated")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    nested = json.loads(before)["rope_parameters"]
    assert config["rope_theta"] == nested["full_attention"]["rope_theta"]
    assert config["rope_local_base_freq"] == nested["sliding_attention"]["rope_theta"]
    assert "rope_parameters" not in config
    assert config["torch_dtype"] == "float32"
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (folder / "model.safetensors").samefile(model / "model.safetensors")
    assert (model / "config.json").read_bytes() == before


def test_training_and_evaluation_rows_never_overlap_and_none_is_lost_to_a_split(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(f'{{"phrase": "{i}", "tone": "joy"}}' for i in range(10)), encoding="utf-8")
    grid.write_rows([file], tmp_path, 5, 3)
    parts = [(tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
             for name in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [5, 3, 2]
    assert len(set().union(*parts)) == 10
    with pytest.raises(SystemExit, match="fewer than 7 \\+ 3"):
        grid.write_rows([file], tmp_path, 7, 3)
