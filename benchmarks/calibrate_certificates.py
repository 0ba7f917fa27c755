"""Does a certificate PASS what it should not, and do the rows that it asks for settle what it left open?"""

from __future__ import annotations

import numpy as np

from autotune import paired, stats
from autotune.certifying import power
from autotune.certifying.looks import confidence_at
from autotune.constraints import parse
from autotune.search import ties
from benchmarks.simulated import CONFIDENCE, Section, ends, flags, passes, right_counts, shown, verdicts

LIMIT = parse("accuracy >= 0.78")
CANDIDATES, FINALISTS, VALID_ROWS = 50, 3, 374
SHARED, OFFSETS = (0.0, 0.8), (-0.005, 0.0, 0.03, 0.06)
#: What is limited, the first sample's size, and the bound: for a percentile its share.
OPENED = (("accuracy", 100, 0.78), ("accuracy", 374, 0.78), ("accuracy", 374, 0.95), ("accuracy", 1421, 0.78),
          ("p50", 50, 0.5), ("p95", 100, 0.95))
#: Of a first measurement's standard error: how far truths lie from the limit.
AROUND, APART = (1.0, 2.0, 3.0), (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
PROMISED = 0.7


def certificate(studies: int, seed: int) -> Section:
    """50 candidates of one true accuracy: the best 3 on validation rows are judged on test rows of their own."""
    section, rows, rng = Section("Certificates"), [], np.random.default_rng(seed)
    wilson_passes = passes(stats.wilson, VALID_ROWS, LIMIT, CONFIDENCE)
    levels = [confidence_at(i + 1, FINALISTS, CONFIDENCE) for i in range(FINALISTS)] + [CONFIDENCE]
    test_passes = {n: [passes(stats.clopper_pearson, n, LIMIT, level) for level in levels] for n in (374, 1421)}
    for shared in SHARED:
        for offset in OFFSETS:
            rate = LIMIT.bound + offset
            best = right_counts(rng, studies, CANDIDATES, VALID_ROWS, rate, shared).max(axis=1)
            naive = best / VALID_ROWS >= LIMIT.bound
            for n, judged in test_passes.items():
                # All candidates are equally good, so any three are as good as the best three on other rows.
                right = right_counts(rng, studies, FINALISTS, n, rate, shared)
                passed = np.any([judged[i][right[:, i]] for i in range(FINALISTS)], axis=0)
                plain = judged[-1][right.max(axis=1)]
                rows.append((f"{rate:.3f}", shared, n, shown(passed), shown(plain), shown(naive),
                             shown(wilson_passes[best])))
                what = f"accuracy {rate:.3f}, shared difficulty {shared}, {n} test rows"
                if offset <= 0:
                    section.at_most(float(passed.mean()), 1 - CONFIDENCE, studies, f"wrong PASSes, {what}")
                    section.promise(naive.mean() > 0.5, f"the naive choice passes in most, {what}: {naive.mean():.3f}")
    section.lines += [f"{CANDIDATES} candidates, all of the true accuracy below, {LIMIT.expr}, {VALID_ROWS} "
                      f"validation rows, {FINALISTS} finalists. Promised below and at the limit: at most 5 % PASS. "
                      "Uncorrected judges each finalist at 95 %. Naive is that the best on validation reaches the "
                      "limit, or that its interval there lies above. Above the limit a PASS is right.", ""]
    section.table(("true accuracy", "shared difficulty", "test rows", "certificate PASSes", "uncorrected",
                   "naive passes", "naive with interval"), rows)
    return section


def settling(studies: int, seed: int) -> Section:
    """A first sample leaves the limit open and names a number of rows; so many new ones are drawn."""
    section, rows, rng = Section("Rows that settle"), [], np.random.default_rng(seed)
    truths = [(f"within ± {d:g}", -d, d) for d in AROUND] + [(f"{d:+g}", d, d) for d in APART]
    for name, n, bound in OPENED:
        limit, error = parse(f"accuracy >= {bound}"), float(np.sqrt(bound * (1 - bound) / n))
        opened = verdicts(*ends(stats.clopper_pearson, n), limit) == "INCONCLUSIVE"
        wanted = np.array([_rows_of(name, k, n, bound) if opened[k] else 0 for k in range(n + 1)])
        for label, least, most in truths:
            truth = np.clip(bound + rng.uniform(least, most, studies) * error, 0, 1)
            first = rng.binomial(n, truth)
            left = wanted[first] > 0
            first, truth, total = first[left], truth[left], wanted[first[left]]
            drawn = rng.binomial(total, truth), first + rng.binomial(total - n, truth)
            fresh, kept = (verdicts(*stats.clopper_pearson(right, total, CONFIDENCE), limit) != "INCONCLUSIVE"
                           for right in drawn)
            rows.append((name, n, bound, label, f"{left.mean():.3f}", int(np.median(total)), shown(fresh), shown(kept)))
            if least < -1 and most > 1:
                section.at_least(float(fresh.mean()), PROMISED, len(fresh), f"{name}, n {n}, bound {bound}, {label}")
    section.lines += ["True rates lie around the bound, in standard errors of the first sample; of those that it "
                      "leaves INCONCLUSIVE, the share that the rows named settle. Promised: at least "
                      f"{PROMISED} of truths within ± 2 and ± 3. Other distances are shown; none settles a truth on "
                      "the bound.", ""]
    section.table(("", "first n", "bound", "truths", "INCONCLUSIVE", "median rows", "new rows settle",
                   "first n kept"), rows)
    _paired_settling(section, min(studies, 2000), rng)
    return section


def _rows_of(name: str, right: int, n: int, bound: float) -> int:
    if name == "accuracy":
        return power.rows_to_settle(right, n, bound, ">=", CONFIDENCE) or 0
    return power.samples_to_settle(right, n, bound, CONFIDENCE) or 0


def _paired_settling(section: Section, studies: int, rng: np.random.Generator) -> None:
    rows, n = [], 374
    for share, margin in ((0.97, 0.0), (1.0, -0.03)):
        both, second = 0.75, 0.05
        at_margin = margin + share * (both + second) - both
        error = np.sqrt(((1 - share)**2 * both + at_margin + share**2 * second - margin**2) / n)
        settled, wanted = [], []
        for first in np.clip(at_margin + rng.uniform(-2, 2, studies) * error, 0.001, 0.19):
            chances = [both, first, second, 1 - both - first - second]
            drawn = flags(*rng.multinomial(n, chances))
            m = paired.difference_to_share(*drawn, share, margin, CONFIDENCE)  # type: ignore[arg-type]
            if m.low is None or m.high is None or m.low >= margin or m.high < margin:
                continue
            total = power.rows_to_settle_paired(*drawn, share, margin, CONFIDENCE)  # type: ignore[arg-type]
            if total:
                low, high = paired.paired_interval(*rng.multinomial(total, chances), share, CONFIDENCE)
                settled.append(bool(low >= margin or high < margin))
                wanted.append(total)
        rows.append((f"{share:g} · baseline {margin:+g}", n, f"{len(settled) / studies:.3f}", int(np.median(wanted)),
                     shown(np.array(settled))))
        section.at_least(float(np.mean(settled)), PROMISED, len(settled), f"paired, share {share}, margin {margin}")
    section.lines += ["The same for limits relative to a baseline, truths within ± 2. Promised too.", ""]
    section.table(("limit", "first n", "INCONCLUSIVE", "median rows", "new rows settle"), rows)


def tied(studies: int, seed: int) -> Section:
    """Two trials, the second cheaper: how often is the first not marked as tied with it?"""
    section, rows, rng = Section("Ties"), [], np.random.default_rng(seed)
    studies = min(studies, 4000)
    for n, first, second in ((100, .05, .05), (374, .05, .05), (374, .1, .1), (1421, .05, .05), (374, .06, .03),
                             (374, .08, .03), (1421, .06, .03)):
        drawn = rng.multinomial(n, [0.75, first, second, 0.25 - first - second], studies)
        pairs, back = np.unique(drawn, axis=0, return_inverse=True)
        found = [1 in ties.ties(dict(enumerate(flags(*pair)[::-1])), {0: [1.0], 1: [2.0]}, CONFIDENCE)  # type: ignore[arg-type]
                 for pair in pairs]
        apart = ~np.array(found)[back.ravel()]
        rows.append((n, f"{first - second:+.2f}", f"{first + second:.2f}", shown(apart)))
        if first == second:
            section.at_most(float(apart.mean()), 1 - CONFIDENCE, studies, f"equal trials told apart, n {n}, {first}")
    section.lines += ["Promised: trials of one true accuracy are told apart in at most 5 % of studies.", ""]
    section.table(("rows", "true difference", "rows that differ", "told apart"), rows)
    return section
