"""Noise on embeddings: its cosine, its shape, and what it leaves of the neighbours."""

import math

import torch
import torch.nn.functional as F

from lazyneuron.experiments.reproduce.neighbour_noise import agreement_under_noise, cosine_for, noisy


def test_every_line_has_the_cosine_and_the_noise_the_covariance():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 0.3, 0.1, 0.0])
    found = F.normalize(torch.randn(4000, 4, generator=generator) * spread + torch.tensor([0.0, 0.0, 0.0, 9.0]), dim=1)
    moved = noisy(found, 0.95, generator=generator)
    assert torch.allclose((moved * found).sum(1), torch.full((4000,), 0.95), atol=1e-4)
    assert torch.allclose(moved.norm(dim=1), torch.ones(4000), atol=1e-4)
    noise = (moved - 0.95 * found)[:, :3]
    # lines of much noise are scaled down, which brings the three closer than 1, 0.3 and 0.1
    assert noise.std(0)[1] < 0.7 * noise.std(0)[0] and noise.std(0)[2] < 0.7 * noise.std(0)[1]


def test_pairs_stay_neighbours_until_the_noise_is_as_large_as_their_distance():
    generator = torch.Generator().manual_seed(1)
    centres = F.normalize(torch.randn(40, 64, generator=generator), dim=1)
    pairs = F.normalize(centres.repeat_interleave(2, 0) + 0.02 * torch.randn(80, 64, generator=generator), dim=1)
    assert agreement_under_noise(pairs, 0.9999) == 1.0
    assert agreement_under_noise(pairs, 0.2) < 0.3
    needed = cosine_for(pairs, 0.9)
    assert agreement_under_noise(pairs, needed + 0.02) >= 0.9 > agreement_under_noise(pairs, needed - 0.05)
    assert 0.5 < needed < math.cos(0.1)


def test_no_noise_changes_nothing():
    found = F.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    assert torch.equal(noisy(found, 1.0, generator=torch.Generator()), found)
