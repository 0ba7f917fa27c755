"""Several finalists share one allowed error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.certifying.looks import METHOD, confidence_at


def test_the_first_spends_half_and_the_last_what_is_left() -> None:
    assert confidence_at(1, 1, 0.95) == pytest.approx(0.95)
    assert [confidence_at(i, 2, 0.95) for i in (1, 2)] == pytest.approx([0.975, 0.975])
    assert [confidence_at(i, 3, 0.95) for i in (1, 2, 3)] == pytest.approx([0.975, 0.9875, 0.9875])
    assert [confidence_at(i, 4, 0.9) for i in (1, 2, 3, 4)] == pytest.approx([0.95, 0.975, 0.9875, 0.9875])


@given(st.integers(1, 20), st.floats(0.5, 0.999))
def test_no_more_is_spent_than_allowed_and_none_is_left(looks: int, confidence: float) -> None:
    spent = [1 - confidence_at(i, looks, confidence) for i in range(1, looks + 1)]
    assert sum(spent) == pytest.approx(1 - confidence)
    assert spent == sorted(spent, reverse=True)


@pytest.mark.parametrize(("look", "looks", "confidence", "reason"), [
    (0, 3, 0.95, "look 0 of 3"), (4, 3, 0.95, "look 4 of 3"), (1, 0, 0.95, "look 1 of 0"), (1, 3, 95, "confidence 95"),
])
def test_what_is_no_look_is_refused(look: int, looks: int, confidence: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        confidence_at(look, looks, confidence)


def test_the_certificate_names_the_method() -> None:
    assert "Wiens 2003" in METHOD
    assert "Berger 1982" in METHOD
