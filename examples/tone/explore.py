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
    wrong = answers[~answers["right"]].groupby(["reference", "answer"]).size().sort_values(ascending=False)
    print("most often taken for another:", ", ".join(f"{a} for {b} ({n})" for (b, a), n in wrong.head(3).items()))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/tone")
