"""The fitted law of loss against parameters and tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwo.training.budgets.scaling import LAW, Law, Point, fit, left_out_errors, worth

TRUE = Law(E=1.8, A=50.0, a=0.35, B=400.0, b=0.4)
SWEEP = [(N, D) for N in (1.6e5, 3.8e5, 1.1e6, 2.6e6) for D in (5e5, 1e6, 2e6, 4e6)]


def swept(noise: float) -> list[Point]:
    chance = np.random.default_rng(0)
    return [Point(N, D, TRUE.loss(N, D) * (1 + noise * chance.standard_normal())) for N, D in SWEEP]


def test_a_law_is_found_again() -> None:
    found = fit(swept(0.0))
    assert found.a == pytest.approx(TRUE.a, abs=0.02) and found.b == pytest.approx(TRUE.b, abs=0.02)
    for N, D in ((1e6, 1e7), (1e7, 2e7)):  # beyond what it has seen
        assert found.loss(N, D) == pytest.approx(TRUE.loss(N, D), rel=0.005)


def test_with_known_exponents_only_the_rest_is_fitted() -> None:
    found = fit(swept(0.0), (TRUE.a, TRUE.b))
    for name in ("E", "A", "a", "B", "b"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-6)
    assert np.abs(left_out_errors(swept(0.0), (TRUE.a, TRUE.b))).max() < 1e-9
    assert fit(swept(0.0), (0.2, 0.3)).a == 0.2


def test_left_out_points_are_foretold() -> None:
    errors = left_out_errors(swept(0.002))
    assert len(errors) == len(SWEEP) and np.abs(errors).max() < 0.01


def test_constants_are_not_negative() -> None:
    """Losses that fall faster than the law can: the floor is 0, not below."""
    found = fit([Point(N, D, 1e8 / N / D**0.2) for N, D in SWEEP])
    assert min(found.E, found.A, found.B) >= 0


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="6 points, found 5"):
        fit(swept(0.0)[:5])


@given(unique=st.floats(1e3, 1e9), readings=st.floats(0.1, 100))
def test_what_repeated_text_is_worth(unique: float, readings: float) -> None:
    seen = readings * unique
    value = worth(seen, unique)
    assert value <= seen * (1 + 1e-9) and value <= 16.4 * unique
    assert worth(1.1 * seen, unique) >= value
    if readings <= 1:
        assert value == seen
    if readings <= 4:
        assert value >= 0.9 * seen


def test_the_law_in_use_prefers_more_of_each() -> None:
    assert LAW.loss(1e6, 2e7) > LAW.loss(2e6, 2e7) and LAW.loss(1e6, 2e7) > LAW.loss(1e6, 4e7)
