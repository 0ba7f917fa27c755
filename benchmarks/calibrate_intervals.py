"""Do intervals of 95 % cover the truth in 95 % of simulated studies, and how wide are they?"""

from __future__ import annotations

import numpy as np
from scipy import stats as scipy_stats

from autotune import paired, stats
from benchmarks.simulated import CONFIDENCE, Numbers, Section, ends, shown

Z = float(scipy_stats.norm.ppf(0.5 + CONFIDENCE / 2))
RATES = (0.55, 0.65, 0.78, 0.85, 0.9, 0.97)
ROWS = (100, 374, 1421)
SAMPLES = ((0.5, (20, 50, 100, 200)), (0.95, (72, 100, 150, 200)))
#: (rows, both right, only the first, only the second), as shares of the rows.
PAIRS = ((60, .75, .05, .05), (100, .75, .05, .05), (100, .6, .2, .1), (374, .75, .05, .05), (374, .76, .02, .04),
         (374, .94, .01, .02), (374, .4, .2, .2), (1421, .75, .05, .05), (1421, .96, .004, .008))
#: No interval that holds for every rate or distribution is as narrow as one that knows it; these are far off.
WIDEST = {"accuracy": 1.2, "p50": 1.4, "p95": 2.0}


def accuracy(studies: int, seed: int) -> Section:
    """Wilson's interval, which the search shows, and the exact one, which certifies."""
    section, rows, rng = Section("Accuracy"), [], np.random.default_rng(seed)
    for n in ROWS:
        wilson, exact = ends(stats.wilson, n), ends(stats.clopper_pearson, n)
        for rate in (*RATES, None):
            truth = np.full(studies, rate) if rate else rng.uniform(0.5, 0.98, studies)
            right = rng.binomial(n, truth)
            known = float(np.mean(2 * Z * np.sqrt(truth * (1 - truth) / n)))
            held = [_held(low[right], high[right], truth) for low, high in (wilson, exact)]
            covered, widths = zip(*held, strict=True)
            name = f"{rate}" if rate else "0.5 … 0.98"
            rows.append((n, name, shown(covered[0]), f"{widths[0]:.4f}", shown(covered[1]), f"{widths[1]:.4f}",
                         f"{known:.4f}"))
            what = f"n {n}, rate {name}"
            section.at_least(float(covered[1].mean()), CONFIDENCE, studies, f"exact interval, {what}")
            section.promise(widths[1] <= WIDEST["accuracy"] * known, f"exact interval needlessly wide, {what}")
            section.promise(widths[0] <= widths[1], f"Wilson's interval wider than the exact one, {what}")
            if rate is None:
                section.at_least(float(covered[0].mean()), CONFIDENCE, studies, f"Wilson's interval, {what}")
    section.lines += ["Promised: the exact interval covers at every rate, Wilson's on average over rates (last line of "
                      "each n). The width beside them is that of an interval which knows the rate, 2 · 1.96 · √(p(1 − "
                      "p)/n).", ""]
    section.table(("rows", "true accuracy", "Wilson covers", "mean width", "exact covers", "mean width",
                   "known rate's width"), rows)
    return section


def percentiles(studies: int, seed: int) -> Section:
    section, rows, rng = Section("p50 and p95 of latencies"), [], np.random.default_rng(seed)
    for q, sizes in SAMPLES:
        name = f"p{round(q * 100)}"
        section.promise(stats.samples_needed(q, CONFIDENCE) <= sizes[0], f"{name} lacks an end with {sizes[0]} samples")
        for n in sizes:
            of_ranks = stats.percentile(range(n), q, CONFIDENCE)
            low, high = int(of_ranks.low or 0), int(of_ranks.high or 0)
            for shape in ("lognormal", "bimodal", "floor + exponential", "AR(1) 0.7"):
                samples, truth = latencies(rng, shape, studies, n, q)
                samples.sort(axis=1)
                covered, width = _held(samples[:, low], samples[:, high], truth)
                narrower = _held(samples[:, low + 1], samples[:, high - 1], truth)[0]
                found = np.quantile(samples, q, axis=1, method="averaged_inverted_cdf")
                known = float(np.subtract(*np.quantile(found, [0.975, 0.025])))
                rows.append((name, n, shape, shown(covered), shown(narrower), f"{width:.2f}", f"{known:.2f}"))
                if shape.startswith("AR"):
                    continue
                what = f"{name}, {n} samples, {shape}"
                section.at_least(float(covered.mean()), CONFIDENCE, studies, what)
                section.at_most(float(narrower.mean()), CONFIDENCE, studies, f"covers though a rank narrower, {what}")
                section.promise(width <= WIDEST[name] * known, f"needlessly wide, {what}: {width:.2f}")
    section.lines += ["Promised for independent samples: it covers, and one rank narrower at both ends it would not. "
                      "The width beside it is the middle 95 % of the estimates themselves, which no study sees. AR(1), "
                      "neighbouring requests correlated by 0.7, is a stress and not promised.", ""]
    section.table(("", "samples", "distribution", "covers", "a rank narrower", "mean width ms", "estimates' range ms"),
                  rows)
    return section


def latencies(rng: np.random.Generator, shape: str, studies: int, n: int, q: float) -> tuple[Numbers, float]:
    """Milliseconds [studies, n] and the true ``q``-quantile, 0.5 or 0.95."""
    normal = rng.standard_normal((studies, n))
    z = float(scipy_stats.norm.ppf(q))
    if shape == "lognormal":
        return 100 * np.exp(0.25 * normal), 100 * np.exp(0.25 * z)
    if shape == "bimodal":
        # One request in ten meets something else on the machine; the two humps hardly overlap.
        slow = rng.random((studies, n)) < 0.1
        inside = (q - 0.9) / 0.1 if q > 0.9 else q / 0.9
        truth = (160 + 8 * scipy_stats.norm.ppf(inside) if q > 0.9 else 100 + 4 * scipy_stats.norm.ppf(inside))
        return np.where(slow, 160 + 8 * normal, 100 + 4 * normal), float(truth)
    if shape == "floor + exponential":
        return 80 + rng.exponential(20, (studies, n)), 80 - 20 * float(np.log1p(-q))
    for i in range(1, n):
        normal[:, i] = 0.7 * normal[:, i - 1] + np.sqrt(1 - 0.7**2) * normal[:, i]
    return 100 * np.exp(0.25 * normal), 100 * np.exp(0.25 * z)


def differences(studies: int, seed: int) -> Section:
    """Paired: the interval that McNemar's comparison and relative limits use, and the bootstrap of other scores."""
    section, rows, rng = Section("Paired differences"), [], np.random.default_rng(seed)
    for share in (1.0, 0.97):
        for n, both, first, second in PAIRS:
            drawn = rng.multinomial(n, [both, first, second, 1 - both - first - second], studies).T
            low, high = paired.paired_interval(*drawn, share, CONFIDENCE)
            truth = both + first - share * (both + second)
            covered, width = _held(low, high, truth)
            variance = (1 - share)**2 * both + first + share**2 * second - truth**2
            known = 2 * Z * float(np.sqrt(variance / n))
            rows.append((n, share, f"{both + first:.3f}", f"{both + second:.3f}", f"{first + second:.3f}",
                         shown(covered), f"{np.mean(low > truth):.3f}", f"{np.mean(high < truth):.3f}",
                         f"{width:.4f}", f"{known:.4f}"))
            section.at_least(float(covered.mean()), CONFIDENCE, studies, f"n {n}, share {share}, {first}, {second}")
    section.lines += ["accuracy − share · baseline. Promised: covers. The last width is that of an interval which "
                      "knows the variance.", ""]
    section.table(("rows", "share", "accuracy", "baseline", "rows that differ", "covers", "misses above",
                   "misses below", "mean width", "known variance's"), rows)
    _bootstrapped(section, min(studies, 1000), rng)
    return section


def _bootstrapped(section: Section, studies: int, rng: np.random.Generator) -> None:
    rows = []
    for n in (50, 128, 374):
        covered = np.empty(studies, bool)
        for i in range(studies):
            # Scores between 0 and 1 such as a row's F1; the second is the first and something of its own.
            first, other = rng.beta(2, 1, n), rng.beta(2, 1, n)
            found = paired.paired_bootstrap(first, 0.7 * first + 0.3 * other, CONFIDENCE).difference  # type: ignore[arg-type]
            covered[i] = found.low is not None and found.high is not None and found.low <= 0 <= found.high
        rows.append((n, studies, shown(covered)))
    section.lines += ["The paired bootstrap of other per-row scores; it is known to cover a little less with few rows, "
                      "and is not promised.", ""]
    section.table(("rows", "studies", "covers"), rows)


def _held(low: Numbers, high: Numbers, truth: Numbers | float) -> tuple[Numbers, float]:
    """Which studies' intervals hold the truth, and their mean width."""
    return (low <= truth) & (truth <= high), float(np.mean(high - low))
