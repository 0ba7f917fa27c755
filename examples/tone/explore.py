"""What the tone study found, from Python: `python examples/tone/explore.py [RUN]`, RUN being runs/tone by default."""

from __future__ import annotations

import sys

import autotune


def main(folder: str) -> None:
    run = autotune.load(folder)
    print(run)
    print(run.front()[[name for name, _ in run.finished.objectives]].to_string())
    chosen = run.selected
    if chosen is None:
        return
    for key, found in (chosen.certified or chosen.values).items():
        print(f"{key:<18} {found.value:10.3f} {found.unit:<9} n = {found.n}")
    answers = run.predictions(chosen.number)
    wrong = answers[~answers["right"]].groupby(["reference", "answer"]).size().reset_index(name="rows")
    worst = wrong.sort_values("rows", ascending=False).head(3).itertuples()
    print("most often taken for another:", ", ".join(f"{w.answer} for {w.reference} ({w.rows})" for w in worst))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/tone")
