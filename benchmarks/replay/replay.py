"""Searches on a table of measured adapters: what each costs until its front is as good as the table's nearly is.

    python benchmarks/replay/replay.py TABLE --require "accuracy >= 0.7" --require "latency_ms.p50 <= 60" \
        --require "size_mb <= 400" [--seeds 30] [--rungs 0.4 1] [--only NAME …] [--plot FILE.html] [--record]

A proposal that is not in the table stands for the nearest adapter of it that was not tried yet, the same for every
search. Fronts are chosen by validation accuracy and valued by test accuracy; see `benchmarks.replay.world.Yardstick`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from autotune.constraints import Constraint, parse
from benchmarks.record import record
from benchmarks.replay.others import FanOut, MoAsha, OneByOne
from benchmarks.replay.ours import Ours
from benchmarks.replay.table import Table, load
from benchmarks.replay.world import Enough, World, Yardstick

Curve = list[tuple[float, float]]
TARGET = 0.95


class Search(Protocol):
    def run(self, world: World, seed: int) -> object: ...


OURS = "autotune"
NAMES = (
    OURS, "autotune, all training to the end", "autotune, training anew for each point",
    "autotune, sampler without constraints", "autotune, without its first points", "autotune, random proposals",
    "TPE, fan-out, with autotune's first points", "TPE, fan-out", "NSGA-II, fan-out", "random, fan-out",
    "MO-ASHA, random", "TPE", "NSGA-II", "random",
)


def searches(rungs: tuple[float, ...]) -> dict[str, Search]:
    """Every search by its name; ``rungs`` are those of all that have some."""
    ours = Ours(rungs)
    return dict(zip(NAMES, (
        ours, Ours((1.0,)), replace(ours, fan_out=False), replace(ours, constrained=False),
        replace(ours, experts=False), replace(ours, sampled=False, experts=False), FanOut("tpe", experts=True),
        FanOut("tpe"), FanOut("nsga2"), FanOut("random"), MoAsha(rungs),
        OneByOne("tpe"), OneByOne("nsga2"), OneByOne("random")), strict=True))


def replay(search: Search, table: Table, limits: Sequence[Constraint], seed: int, yardstick: Yardstick) -> Curve:
    """(seconds, share of the table's hypervolume) after each scored pair, until the share is `TARGET`."""
    tally, curve = yardstick.tally(), Curve()

    def enough(scored: tuple[float, int, str]) -> bool:
        tally.add(scored[1], scored[2])
        curve.append((scored[0], tally.volume() / yardstick.whole))
        return curve[-1][1] >= TARGET

    with contextlib.suppress(Enough):
        search.run(World(table, limits, enough=enough), seed)
    return curve


def cost(curve: Curve) -> float:
    """Seconds until the target; infinite where the search ended before."""
    return curve[-1][0] if curve and curve[-1][1] >= TARGET else float("inf")


def quartiles(costs: Sequence[float]) -> list[float]:
    """Some may be infinite, so no interpolation: the first quartile is the value that a quarter does not exceed."""
    return [float(v) for v in np.quantile(costs, [0.25, 0.5, 0.75], method="inverted_cdf")]


def ratio(others: Sequence[float], ours: Sequence[float], resamples: int = 4000) -> tuple[float, float, float]:
    """How many times the others' median is ours, with the 95 % percentile bootstrap interval over seeds."""
    rng, n = np.random.default_rng(0), len(ours)
    medians = [
        np.quantile(np.asarray(costs)[rng.integers(0, n, (resamples, n))], 0.5, axis=1, method="inverted_cdf")
        for costs in (others, ours)]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975], method="inverted_cdf")
    return quartiles(others)[1] / quartiles(ours)[1], float(low), float(high)


def lines(found: Mapping[str, Sequence[Curve]]) -> list[str]:
    """A Markdown table of costs."""
    costs = {name: [cost(c) for c in curves] for name, curves in found.items()}
    head = ("search", "first quartile s", "median s", "third quartile s", "median ÷ autotune's (95 % interval)",
            "not reached")
    told = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, values in costs.items():
        shown = " | ".join("–" if np.isinf(q) else f"{q:.0f}" for q in quartiles(values))
        against = "1"
        if name != OURS and OURS in costs:
            against = "{:.2f} ({:.2f} to {:.2f})".format(*ratio(values, costs[OURS]))
        told.append(f"| {name} | {shown} | {against} | {sum(map(np.isinf, values))} of {len(values)} |")
    return told


def plot(costs: Mapping[str, Sequence[float]], file: Path) -> None:
    """Median and quartiles of each search's seconds, as a page that needs no network; ``costs`` as of `quartiles`."""
    import plotly.graph_objects as go

    shown = {name: q for name, q in reversed(costs.items()) if np.isfinite(q).all()}
    low, median, high = (list(column) for column in zip(*shown.values(), strict=True))
    colours = ["#d95f02" if name == OURS else "#7fa8d1" if name.startswith(OURS) else "#4d4d4d" for name in shown]
    figure = go.Figure(layout={"template": "plotly_white", "showlegend": False, "width": 1000, "height": 480,
                               "margin": {"t": 20, "r": 90}})
    for at, name in enumerate(shown):
        figure.add_scatter(x=[low[at], high[at]], y=[name, name], mode="lines", line={"color": colours[at], "width": 6})
    figure.add_scatter(x=median, y=list(shown), mode="markers",
                       marker={"color": colours, "size": 13, "line": {"width": 1.5}})
    figure.add_scatter(x=[1.05 * end for end in high], y=list(shown), mode="text", textposition="middle right",
                       text=[f"{m:,.0f} s" for m in median], cliponaxis=False)
    figure.update_xaxes(type="log", title=f"seconds of one machine to {TARGET:.0%} of the feasible hypervolume: "
                                          "median and quartiles", minor={"showgrid": True}, dtick=1)
    figure.update_yaxes(automargin=True)
    figure.write_html(file, include_plotlyjs=True, config={"displayModeBar": False})


def replay_all(
    names: Sequence[str], seeds: int, table: Path, limits: Sequence[str], rungs: tuple[float, ...], jobs: int
) -> dict[str, list[Curve]]:
    """Every search with every seed, ``jobs`` at a time: costs are the table's, whatever a replay takes."""
    found: dict[str, list[Curve]] = {}
    with ProcessPoolExecutor(jobs) as pool:
        for name in names:
            began = time.monotonic()
            found[name] = list(pool.map(partial(_replayed, name, table, limits, rungs), range(seeds)))
            print(f"{name}: {time.monotonic() - began:.0f} s for {seeds} replays", file=sys.stderr, flush=True)
    return found


def _replayed(name: str, file: Path, require: Sequence[str], rungs: tuple[float, ...], seed: int) -> Curve:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table, limits = _table(file), [parse(expr) for expr in require]
    return replay(searches(rungs)[name], table, limits, seed, Yardstick(table, limits))


_table = lru_cache(load)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/replay/replay.py", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--require", action="append", default=[], metavar="EXPR")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=list(NAMES), choices=list(NAMES), metavar="NAME")
    parser.add_argument("--rungs", nargs="*", type=float, help="fractions of training; default: where all was judged")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="replays at a time")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/RESULTS.md")
    options = parser.parse_args(arguments)
    table = _table(options.table)
    rungs = tuple(options.rungs or table.judged_rungs)
    found = replay_all(options.only, options.seeds, options.table, options.require, rungs, options.jobs)
    told = lines(found)
    print("\n".join(told))
    if options.plot:
        plot({name: quartiles([cost(c) for c in curves]) for name, curves in found.items()}, options.plot)
    if options.record:
        note = (f"{len(table.adapters)} adapters × {len(table.points)} deploy points of {options.table.name}, "
                f"{options.seeds} seeds, rungs {', '.join(f'{r:g}' for r in rungs)}; seconds until the front is worth "
                f"{TARGET:.0%} of the table's feasible hypervolume, chosen on validation rows, valued on test rows")
        words = arguments if arguments is not None else sys.argv[1:]
        command = f"python benchmarks/replay/replay.py {shlex.join(words)}"
        record("Searches replayed", command, note, told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
