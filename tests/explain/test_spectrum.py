"""Spectra made by hand, and the Marchenko-Pastur law's own equations."""

from __future__ import annotations

import math

import pytest
import torch

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.explain import (
    GramTracker,
    marchenko_pastur,
    participation_ratio,
    spectral_concentration,
    stieltjes_bound,
)
from lazyneuron.explain.marchenko_pastur import density
from lazyneuron.explain.spectrum import gram_eigenvalues


def with_spectrum(values: list[float], neurons: int, width: int, seed: int = 0) -> torch.Tensor:
    """A matrix whose K K^T has these eigenvalues and zeros."""
    g = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(neurons, neurons, generator=g, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(width, width, generator=g, dtype=torch.float64)).Q
    k = len(values)
    return left[:, :k] @ torch.tensor(values, dtype=torch.float64).sqrt().diag() @ right[:k]


def test_a_spectrum_made_by_hand() -> None:
    report = spectral_concentration(with_spectrum([1.0, 2.0, 4.0, 400.0], 16, 4), floor=0.01)
    assert report.rank == 4
    assert report.zero_share == pytest.approx(12 / 16)
    assert report.mean == pytest.approx(407 / 16)
    assert report.mean_nonzero == pytest.approx(407 / 4)
    assert report.singular_ratio == pytest.approx(20.0)
    assert report.floor_ratio == pytest.approx(400.0)
    # with the callers' floor of 10 only eigenvalues above 10 * 407 / 16 = 254 are compared
    assert spectral_concentration(with_spectrum([1.0, 2.0, 4.0, 400.0], 16, 4)).floor_ratio == pytest.approx(1.0)
    assert report.participation == pytest.approx(407**2 / (1 + 4 + 16 + 160000))


def test_the_narrowest_interval() -> None:
    # 8 of 10 eigenvalues within one tenth of a decade, the others a thousand times away on either side
    values = [1e-1 * 1.001, *[100.0 * 1.02**k for k in range(8)], 1e5]
    report = spectral_concentration(with_spectrum(values, 10, 10), mass=0.8, bins=600)
    width = 6 / 600
    assert 1.02**7 <= report.mass_ratio <= 1.02**7 * 10 ** (2 * width)
    everything = spectral_concentration(with_spectrum(values, 10, 10), mass=1.0)
    assert everything.mass_ratio == pytest.approx(1e5 / 0.1001, rel=1e-6)
    assert math.isnan(spectral_concentration(with_spectrum([1e-3], 4, 4)).mass_ratio)


@pytest.mark.parametrize(("neurons", "width"), [(12, 5), (5, 12), (6, 6)])
def test_eigenvalues_are_those_of_the_large_gram_matrix(neurons: int, width: int) -> None:
    k = torch.randn(neurons, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = torch.linalg.eigvalsh(k @ k.t())
    torch.testing.assert_close(gram_eigenvalues(k), wanted, atol=1e-10, rtol=1e-10)


def test_participation() -> None:
    assert participation_ratio(torch.tensor([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert participation_ratio(torch.tensor([5.0, 0.0])) == 1.0
    assert math.isnan(participation_ratio(torch.zeros(3)))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 2.5])
def test_the_density_integrates_to_its_mass_and_mean(ratio: float) -> None:
    variance = 1.7
    high = variance * (1 + math.sqrt(ratio)) ** 2
    # the substitution v = w^2 takes the singular end of c = 1 away
    w = torch.linspace(1e-6, math.sqrt(high), 400_001, dtype=torch.float64)
    weight = 2 * w * density(w * w, ratio, variance=variance)
    assert float(torch.trapezoid(weight, w)) == pytest.approx(min(1.0, 1 / ratio), abs=2e-4)
    assert float(torch.trapezoid(weight * w * w, w)) == pytest.approx(variance, rel=1e-3)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.0])
def test_independent_entries_follow_the_law(ratio: float) -> None:
    width = 400
    samples = int(width / ratio)
    h = 1.5 * torch.randn(width, samples, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = torch.linalg.eigvalsh(h @ h.t() / samples).clamp(min=0)
    fit = marchenko_pastur(values, ratio)
    assert fit.variance == pytest.approx(2.25, rel=0.02)
    assert fit.distance < 0.02
    assert fit.outside < 0.02
    assert fit.mass_at_zero == pytest.approx(max(0.0, 1 - 1 / ratio))
    assert marchenko_pastur(values, ratio, variance=4.5).distance > 0.1
    assert marchenko_pastur(torch.linspace(0, 20, width).double(), ratio).distance > 0.1


def test_an_isotropic_gram_matrix_participates_as_it_should() -> None:
    width, samples = 60, 240
    tracker = GramTracker(width, lr=0.1)
    g = torch.Generator().manual_seed(2)
    for _ in range(samples // 8):
        tracker.update(torch.randn(8, width, generator=g))
    c = width / samples
    assert tracker.steps == 30
    assert tracker.participation / width == pytest.approx(1 / (1 + c), rel=0.03)
    assert tracker.anisotropy / width == pytest.approx(math.sqrt(1 - tracker.participation / width), rel=1e-12)
    s = tracker.gram * float(tracker.gram.trace()) / float(tracker.gram.square().sum())
    by_definition = math.sqrt(width) * float((s - torch.eye(width).double()).square().sum().sqrt())
    assert tracker.anisotropy == pytest.approx(by_definition, rel=1e-9)


@pytest.mark.parametrize("power", [1, 2])
def test_a_decayed_sum_by_hand(power: int) -> None:
    tracker = GramTracker(2, lr=0.5, weight_decay=0.2, decay_power=power)
    tracker.update(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    tracker.update(torch.tensor([[0.0, 1.0]]))
    rate = 0.9**power
    torch.testing.assert_close(tracker.gram, torch.tensor([[0.5 * rate, 0.0], [0.0, 2 * rate + 1]]).double())


@pytest.mark.parametrize("power", [1, 2])
def test_effective_steps_are_where_the_tail_has_fallen_enough(power: int) -> None:
    for lr, decay in ((0.1, 0.3), (0.5, 0.5), (1e-2, 0.1)):
        tracker = GramTracker(2, lr=lr, weight_decay=decay, threshold=1e-3, decay_power=power)
        r, t = (1 - lr * decay) ** power, tracker.effective_steps
        assert r ** (t + 1) / (1 - r) <= 1e-3 * (1 + 1e-9)
        assert r**t / (1 - r) > 1e-3
    assert GramTracker(2, lr=0.1).effective_steps == math.inf


def test_the_bound_by_hand() -> None:
    imaginary, real = stieltjes_bound(100, 10, 10, 0.5, 0.2, v=1.0)
    q = math.sqrt(1 + (2 * math.sqrt(2) + 3) * 0.5 + 0.2 + 0.01)
    assert imaginary == pytest.approx(math.sqrt(2) * 0.25 * q)
    assert real == pytest.approx(math.sqrt(2) * 0.5 * q)


def test_the_bound_of_infinitely_many_steps() -> None:
    steps = GramTracker(3, lr=0.1).effective_steps
    assert stieltjes_bound(3, steps, 4, 0.5, 0.1) == (math.inf, math.inf)
    near, far = (stieltjes_bound(3, s, 4, 0.5, 0.1) for s in (1e12, 4e12))
    assert far == pytest.approx([2 * value for value in near])  # it grows like the root of the steps
    assert stieltjes_bound(3, steps, 4, 0.0, 0.1) == stieltjes_bound(3, 1e12, 4, 0.0, 0.1) == (0.0, 0.0)


def test_a_tracker_that_has_seen_nothing_knows_nothing() -> None:
    tracker = GramTracker(3, lr=0.1)
    assert math.isnan(tracker.participation) and math.isnan(tracker.anisotropy)
    tracker.update(torch.eye(3))
    assert tracker.anisotropy == 0 and tracker.participation == pytest.approx(3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    tracker = GramTracker(3, lr=0.1)
    tracker.update(torch.eye(3)[:1])
    for refused in (
        lambda: tracker.update(torch.tensor([[0.0, bad, 0.0]])),
        lambda: marchenko_pastur(torch.tensor([1.0, bad]), 1.0),
        lambda: marchenko_pastur(torch.tensor([1.0, bad]), 1.0, variance=1.0),
        lambda: spectral_concentration(torch.tensor([[1.0, bad]])),
    ):
        with pytest.raises(DataError, match="must be finite"):
            refused()
    assert tracker.participation == 1 and tracker.steps == 1


@pytest.mark.parametrize("bad", ["3", None, True, math.nan])
def test_numbers_that_are_none(bad: object) -> None:
    ones = torch.ones(3)
    numbers = dict(width=3, steps=1, batch=2, alpha=0.1, anisotropy=0.1)
    for refused in (
        lambda: GramTracker(bad, lr=0.1),  # type: ignore[arg-type]
        lambda: GramTracker(3, lr=bad),  # type: ignore[arg-type]
        lambda: GramTracker(3, lr=0.1, weight_decay=bad),  # type: ignore[arg-type]
        lambda: GramTracker(3, lr=0.1, threshold=bad),  # type: ignore[arg-type]
        lambda: GramTracker(3, lr=0.1, decay_power=bad),  # type: ignore[arg-type]
        lambda: marchenko_pastur(ones, bad),  # type: ignore[arg-type]
        *(lambda name=name: stieltjes_bound(**numbers | {name: bad}) for name in numbers),  # type: ignore[misc]
    ):
        with pytest.raises(ConfigError):
            refused()
    for ratio, variance in ((math.inf, None), (1.0, math.inf), (1.0, "1"), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="The law's"):
            marchenko_pastur(ones, ratio, variance=variance)  # type: ignore[arg-type]
    for width in (2.5, 0):
        with pytest.raises(ConfigError, match="The width is a whole number"):
            GramTracker(width, lr=0.1)  # type: ignore[arg-type]
    for wrong in ([1.0, 2.0], "12"):
        with pytest.raises(DataError, match="Eigenvalues must be a tensor"):
            marchenko_pastur(wrong, 1.0)  # type: ignore[arg-type]


def test_bad_numbers() -> None:
    with pytest.raises(ShapeError, match="that of a matrix"):
        spectral_concentration(torch.zeros(3))
    with pytest.raises(ConfigError, match="mass in"):
        spectral_concentration(torch.eye(3), mass=2.0)
    with pytest.raises(ConfigError, match="The law's ratio"):
        marchenko_pastur(torch.ones(3), 0.0)
    with pytest.raises(ConfigError, match="decay_power"):
        GramTracker(3, lr=0.1, decay_power=3)
    with pytest.raises(ShapeError, match="A batch is"):
        GramTracker(3, lr=0.1).update(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="samples >= 1"):
        GramTracker(3, lr=0.1).update(torch.zeros(0, 3))
    with pytest.raises(ConfigError, match="The width"):
        stieltjes_bound(0, 1, 1, 0.1, 0.1)
