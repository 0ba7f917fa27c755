"""How sure one must be of each finalist, so that looking at several does not make a wrong PASS more likely."""

from __future__ import annotations

METHOD = (
    "Finalists are judged one after the other in an order fixed before the test split was read. Of the allowed error "
    "1 - confidence the first spends half, the next half of the rest, and so on, and the last what is left: "
    "a weighted Bonferroni correction in a fixed order (the fallback procedure of Wiens 2003, ended at the first "
    "PASS). All constraints of a finalist must PASS (an intersection-union test, Berger 1982)."
)


def confidence_at(look: int, looks: int, confidence: float) -> float:
    """The two-sided confidence with which finalist ``look`` (1 … ``looks``) is judged: 1 - α_i.

    Of α = 1 - ``confidence`` the first finalist spends a half, the next a quarter, …, and the last as much as the
    one before it, so that Σ α_i = α; a single finalist spends all. The first gets most because it is what the policy
    prefers and what is mostly selected.

    What this promises: PASS rests on one end of an interval, so a finalist that does not keep its limits PASSes with
    a probability of at most α_i / 2, and *any* such finalist PASSes with at most Σ α_i / 2 = α / 2 (Bonferroni's
    inequality: however the finalists' errors depend on one another, and they do, being asked the same rows). It needs
    the order to be fixed before the test split is read. The weights and the fixed order are those of the fallback
    procedure (Wiens 2003, Pharm. Stat. 2:211). That one hands the error of a finalist that PASSed on to the next;
    here one stops at the first PASS, so there is nothing to hand on.

    Why stop there: the first PASS is what is selected, and nothing is claimed about those behind it. Going on could
    change no choice and could only add claims that may be wrong.

    Several constraints of one finalist need no correction for PASS: it PASSes only if all of them do, so a wrong PASS
    needs the very constraint that is violated to PASS, which has a probability of at most α_i / 2 however many others
    there are (the intersection-union test: Berger 1982, Technometrics 24:295). FAIL is the other way round: one of m
    constraints is enough, so a finalist that keeps all of them FAILs with at most m · α_i / 2.

    Raises:
        ValueError: ``look`` not within 1 … ``looks``, or ``confidence`` not between 0 and 1.
    """
    if not 1 <= look <= looks:
        raise ValueError(f"look {look} of {looks}; accepted: 1 to the number of looks")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}; accepted: between 0 and 1")
    halvings = min(look, looks - 1)
    return float(1 - (1 - confidence) / 2**halvings)
