"""Spaces: presets parse, dimensions are typed, conditional ones are asked for only where they mean something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from search_spaces.deploy import DeployParams
from search_spaces.space import Choice, Range, Space, load_preset, parse_space, preset_names


class Recorder:
    """A trial that takes the first choice or the low end, and remembers what it was asked."""

    def __init__(self, **fixed: Any) -> None:
        self.asked: list[str] = []
        self._fixed = fixed

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked.append(name)
        return self._fixed.get(name, choices[0])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return float(self._fixed.get(name, low))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.asked.append(name)
        return int(self._fixed.get(name, low))


def space(**adapter: Any) -> Space:
    parsed, problems = parse_space({"adapter": adapter, "deploy": [{"precision": "int8"}]})
    assert parsed is not None, problems
    return parsed


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_and_suggests(name: str) -> None:
    parsed, problems = parse_space(name)
    assert not problems
    assert parsed is not None
    params = parsed.suggest(Recorder())
    assert params.rank >= 1
    assert len(set(parsed.deploy)) == len(parsed.deploy) >= 3


def test_presets_explain_every_range() -> None:
    from importlib import resources

    for name in preset_names():
        text = resources.files("search_spaces.presets").joinpath(f"{name}.yaml").read_text("utf-8")
        assert text.startswith("# ")
        assert load_preset(name)["adapter"]


def test_constants_are_no_dimensions() -> None:
    trial = Recorder()
    params = space(rank=16, learning_rate=[1e-4, 1e-3], epochs=3).suggest(trial)
    assert trial.asked == ["learning_rate"]
    assert (params.rank, params.epochs) == (16, 3.0)


def test_scale_keeps_its_meaning_across_ranks_and_variants() -> None:
    chosen = space(rank=[16], scale=[2], variant=["lora", "rslora"])
    assert chosen.suggest(Recorder(variant="lora")).alpha == 32
    rslora = chosen.suggest(Recorder(variant="rslora"))
    assert rslora.alpha / math.sqrt(rslora.rank) == 2


def test_dropout_is_asked_for_only_where_it_is_cheap() -> None:
    chosen = space(rank=8, variant=["lora", "dora"], dropout=[0.0, 0.1])
    plain, magnitude = Recorder(variant="lora"), Recorder(variant="dora")
    chosen.suggest(plain)
    assert chosen.suggest(magnitude).dropout == 0.0
    assert "dropout" in plain.asked
    assert "dropout" not in magnitude.asked


def test_deploy_recipes_multiply_out_without_repeats() -> None:
    parsed, _ = parse_space({"adapter": {"rank": 8}, "deploy": [
        {"precision": "int4", "block_size": [32, 64], "symmetric": [True, False]}, {"precision": ["int8", "int4"]}]})
    assert parsed is not None
    assert len(parsed.deploy) == 5  # the last recipe's int4 is the first one's
    assert DeployParams("int4", block_size=64, symmetric=False) in parsed.deploy
    assert len({p.label for p in parsed.deploy}) == 5


@pytest.mark.parametrize(("raw", "where"), [
    ("quik", ""), (None, ""), ({"adapter": {"rank": 8}}, "deploy"), ({"deploy": [{"precision": "int8"}]}, "adapter"),
    ({"adaptor": {}}, "adaptor"), ({"adapter": {"rank": 0}}, "adapter.rank"),
    ({"adapter": {"rank": 2.5}}, "adapter.rank"), ({"adapter": {"rank": True}}, "adapter.rank"),
    ({"adapter": {"rank": []}}, "adapter.rank"), ({"adapter": {"targets": {"low": 1, "high": 2}}}, "adapter.targets"),
    ({"adapter": {"learning_rate": {"low": 1e-4, "hihg": 1e-3}}}, "adapter.learning_rate.hihg"),
    ({"adapter": {"dropout": {"low": 0, "high": 0.1, "log": True}}}, "adapter.dropout.low"),
    ({"adapter": {}, "deploy": [{"precision": "int8", "int8_where": "head"}]}, "deploy[0].int8_where"),
    ({"adapter": {}, "deploy": [{"precision": "int4", "symmetric": 1}]}, "deploy[0].symmetric"),
    ({"adapter": {}, "deploy": [{"blocksize": 32}]}, "deploy[0].blocksize"),
    ({"adapter": {}, "deploy": ["int8"]}, "deploy[0]"),
])
def test_every_mistake_is_found_where_it_is(raw: Any, where: str) -> None:
    parsed, problems = parse_space(raw)
    assert parsed is None
    assert where in [p.where for p in problems]


def test_points_move_into_the_space() -> None:
    chosen = space(rank=[4, 8], learning_rate={"low": 1e-4, "high": 3e-4}, targets=["mlp", "qv"], epochs=3)
    inside = chosen.nearest_values({"rank": 16, "learning_rate": 1e-3, "targets": "all-linear", "epochs": 2})
    assert inside == {"rank": 8, "learning_rate": 3e-4, "targets": "mlp"}


def test_learning_rate_and_scale_are_one_axis_with_the_scale_beside_it() -> None:
    parsed, problems = parse_space({"adapter": {"rate_scale": 1e-3, "learning_rate": 1e-4}, "deploy": []})
    assert parsed is None
    assert "adapter.rate_scale" in [p.where for p in problems]
    chosen = space(rank=16, rate_scale={"low": 1e-4, "high": 1e-2, "log": True}, scale={"low": 0.5, "high": 4.0},
                   variant=["lora", "rslora"])
    for variant, divisor in (("lora", 16), ("rslora", 4)):
        found = chosen.suggest(Recorder(rate_scale=2e-3, scale=2.0, variant=variant))
        assert found.learning_rate == pytest.approx(1e-3)
        assert found.alpha == 2 * divisor
    inside = chosen.nearest_values({"learning_rate": 5e-4, "scale": 2.0, "rank": 16})
    assert inside == {"rate_scale": pytest.approx(1e-3), "scale": 2.0}


def test_the_number_of_adapters_is_known_where_it_is_finite() -> None:
    assert space(rank={"low": 4, "high": 7}, targets=["qv", "mlp"]).adapter_count() == 8
    assert space(rank=8, learning_rate={"low": 1e-4, "high": 1e-3}).adapter_count() == math.inf
    assert space(rank=8).adapter == {"rank": Choice((8,))}
    assert space(rank={"low": 4, "high": 64, "log": True}).adapter["rank"] == Range(4, 64, True, True)


def test_a_preset_with_something_replaced_keeps_the_rest() -> None:
    whole, none = parse_space("quick")
    changed, problems = parse_space({"preset": "quick", "adapter": {"steps": 200, "alpha": 16, "rank": 4}})
    assert whole
    assert changed
    assert not none
    assert not problems
    assert changed.deploy == whole.deploy
    assert set(changed.adapter) == set(whole.adapter) - {"epochs", "scale"} | {"steps", "alpha"}
    assert changed.adapter["rank"] == Choice((4,))
    assert changed.adapter["learning_rate"] == whole.adapter["learning_rate"]
    other, problems = parse_space({"preset": "quick", "deploy": [{"precision": "fp32"}]})
    assert other
    assert other.adapter == whole.adapter
    assert [p.precision for p in other.deploy] == ["fp32"]


def test_mistakes_in_a_preset_with_something_replaced_are_named() -> None:
    assert parse_space({"preset": "quik"})[1][0] == (
        "preset", "no preset named 'quik', did you mean 'quick'?",
        f"one of {', '.join(preset_names())}, or dimensions inline")
    where = [p.where for p in parse_space({"preset": "quick", "adapter": [1], "deplo": 1})[1]]
    assert where == ["deplo", "adapter"]
    assert parse_space({"preset": 3})[1][0].where == "preset"
