"""The counter-based generator: the same in any division, and random by all that a batch could notice."""

import math
from itertools import pairwise

import pytest
import torch

from recon_fast.data.batches.counter import Stream, keys, permute, uniform, words

SAMPLES = torch.arange(4000)


def z_score(counts: torch.Tensor) -> float:
    """Standard deviations that the chi-square of equally likely cells lies above its mean."""
    expected, free = counts.double().mean(), counts.numel() - 1
    return float((((counts - expected) ** 2 / expected).sum() - free) / math.sqrt(2 * free))


def key(seed=0, step=0, stream=Stream.POINTS, sample=SAMPLES):
    return keys(seed, torch.full_like(sample, step), stream, sample)


def test_known_words():
    """What any machine and any version must give."""
    first = words(key(1, 2, sample=torch.tensor([3])), 2)
    assert first.tolist() == [[-3893664517556822653, 500274487517160239]]
    # With a key of 0 it is SplitMix64 from seed 0, as published.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [word % 2**64 for word in words(torch.zeros(1, dtype=torch.int64), 3)[0].tolist()] == published


def test_numbers_depend_on_their_own_sample_alone():
    whole = uniform(key(), 5)
    for index in torch.randperm(len(SAMPLES), generator=torch.Generator().manual_seed(0)).split(999):
        assert torch.equal(uniform(key(sample=index), 5), whole[index])
    assert torch.equal(uniform(key(), 3), whole[:, :3])
    places = torch.arange(300)
    ragged = torch.tensor([300, 1000])[SAMPLES % 2]
    drawn = permute(places, ragged, key())
    for size in (300, 1000):
        of_size = ragged == size
        assert torch.equal(drawn[of_size], permute(places, size, key()[of_size]))
    assert torch.equal(drawn[:, 100:], permute(places[100:], ragged, key()))


def test_uniform_numbers_have_mean_variance_and_cells_of_uniform_ones():
    u = uniform(key(), 100).double()
    count = u.numel()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * count)
    assert abs(u.var() - 1 / 12) < 4 / math.sqrt(180 * count)
    assert abs(z_score((u.flatten() * 1000).long().bincount(minlength=1000))) < 4
    assert abs(z_score((u[:, 0] * 64).long().bincount(minlength=64))) < 4  # over samples
    pairs = (u[:, 1:] * 16).long() * 16 + (u[:, :-1] * 16).long()
    assert abs(z_score(pairs.flatten().bincount(minlength=256))) < 4
    bits = words(key(), 20)
    for bit in range(64):
        assert abs(((bits >> bit) & 1).double().mean() - 0.5) < 5 * 0.5 / math.sqrt(bits.numel()), bit


def test_neighbours_in_every_coordinate_are_not_correlated():
    base = uniform(key(3, 5), 20).double().flatten()
    others = {
        "seed": key(4, 5),
        "step": key(3, 6),
        "stream": key(3, 5, Stream.CHOICES),
        "sample": key(3, 5, sample=SAMPLES + 1),
        "seed and step swapped": key(5, 3),
    }
    for name, other in others.items():
        found = torch.corrcoef(torch.stack([base, uniform(other, 20).double().flatten()]))[0, 1]
        assert abs(found) < 4 / math.sqrt(len(base)), name


def test_keys_and_words_do_not_repeat():
    found = torch.cat(
        [
            key(seed, step, stream, torch.arange(500))
            for seed in (0, 1, 2**62)
            for step in (0, 1, 2, 100_000)
            for stream in Stream
        ]
    )
    assert found.unique().numel() == found.numel()
    drawn = words(found, 20)
    assert drawn.unique().numel() == drawn.numel()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 10, 63, 65, 130, 1000, 8192, 10_007])
def test_permutation_is_one(size):
    whole = permute(torch.arange(size), size, key()[:50])
    assert torch.equal(whole.sort(1).values, torch.arange(size).expand(50, -1))


def test_permutation_of_many_elements():
    drawn = permute(torch.arange(200_000), 2**31 - 1, key()[:1])
    assert drawn.unique().numel() == 200_000
    assert drawn.min() >= 0
    assert 2**31 - 1 - 2**17 < drawn.max() < 2**31 - 1
    assert abs(z_score((drawn * 256 // (2**31 - 1)).flatten().bincount(minlength=256))) < 4


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_all_orders_of_few_elements_are_equally_likely(size):
    drawn = permute(torch.arange(size), size, key(sample=torch.arange(50_000)), rounds=16)
    code = (drawn * size ** torch.arange(size)).sum(1)
    counts = code.unique(return_counts=True)[1]
    assert len(counts) == math.factorial(size)
    assert abs(z_score(counts)) < 4


@pytest.mark.parametrize("size", [512, 1000, 2048, 8192])
def test_points_are_drawn_uniformly_and_independently(size):
    """As `ResidentShapes` draws them: 4 rounds, the first places of a cloud."""
    drawn = permute(torch.arange(256), size, key())  # [4000, 256]
    cells = 64 if size % 64 == 0 else 50
    for place in (0, 1, 255):
        assert abs(z_score((drawn[:, place] * cells // size).bincount(minlength=cells))) < 4
    assert abs(z_score(drawn.flatten().bincount(minlength=size)) + (256 / size) * math.sqrt(size / 2)) < 4
    for lag in (1, 2, 64, 128):  # differences are uniform over 1 .. size - 1
        steps = (drawn[:, lag:] - drawn[:, :-lag]) % size
        assert abs(z_score(steps.flatten().bincount(minlength=size)[1:])) < 5, lag
        first = (drawn[:, lag] - drawn[:, 0]) % size
        assert abs(z_score(((first - 1) * 7 // (size - 1)).bincount(minlength=7))) < 5, lag
    # Subsets spread over the cloud as those of a shuffle do: hypergeometric variance of a half's share.
    lower = (drawn * 2 < size).sum(1).double()
    expected = 256 / 4 * (size - 256) / (size - 1)
    assert abs(lower.var() / expected - 1) < 4 * math.sqrt(2 / len(drawn))


def test_orders_of_different_samples_are_independent():
    drawn = permute(torch.arange(64), 1000, key())
    for one, two in pairwise(drawn[:200].split(1)):
        assert (one == two).sum() < 4
    matches = (drawn[1:] == drawn[:-1]).double().mean()
    assert abs(matches - 1 / 1000) < 4 * math.sqrt(1e-3 / drawn[1:].numel())
