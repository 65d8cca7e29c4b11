"""Random numbers that are a function of (seed, step, sample) and of nothing else.

A generator with a state gives a sample other numbers when the batch is divided otherwise. Here each number is
a hash of what it is for, so that any process, in any order, in batches of any size, draws alike. The hash is
SplitMix64 (Steele, Lea & Flood 2014) as a tree: a key is the mix of its parent and a counter. It takes
nothing but integer arithmetic modulo 2^64, which is the same on CPUs and GPUs.
"""

from enum import IntEnum

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15  # odd, 2^64 / golden ratio
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Stream(IntEnum):
    """What numbers are for; each use has a stream of its own."""

    ORDER = 0  # of the shapes in an epoch
    POINTS = 1  # of a cloud
    CHOICES = 2  # rotation, view, prompt, mask
    CHANGES = 3  # rotation, scale and shift of a labelled cloud
    VOTED_POINTS = 4
    VOTED_CHANGES = 5
    TESTED_POINTS = 6  # of a cloud that is resampled


def _signed(x: int) -> int:
    """The int64 with the bits of x modulo 2^64."""
    x &= 2**64 - 1
    return x - 2**64 if x >= 2**63 else x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits of int64 as if it were unsigned."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The finalizer of SplitMix64, a bijection of int64."""
    x = (x ^ _shifted(x, 30)).mul_(_signed(_MIX1))
    x ^= _shifted(x, 27)
    x.mul_(_signed(_MIX2))
    return x.bitwise_xor_(_shifted(x, 31))


def _mix_int(x: int) -> int:
    x &= 2**64 - 1
    x = (x ^ x >> 30) * _MIX1 % 2**64
    x = (x ^ x >> 27) * _MIX2 % 2**64
    return x ^ x >> 31


def keys(seed: int, step: Tensor, stream: Stream, sample: Tensor) -> Tensor:
    """A key for each sample: [B] int64, on the samples' device.

    Args:
        seed: any integer.
        step: [B] int64.
        stream: what the key is for.
        sample: [B] int64, what tells samples of a step apart, such as their row in the set.
    """
    parent = _mix_int(_mix_int((seed + 1) * _GAMMA) + (stream + 1) * _GAMMA)
    gamma = _signed(_GAMMA)
    of_step = _mix((step + 1).mul_(gamma).add_(_signed(parent)))
    return _mix((sample + 1).mul_(gamma).add_(of_step))


def words(key: Tensor, count: int) -> Tensor:
    """The first `count` words of each key [B]: int64 [B, count], all 64 bits random."""
    counter = torch.arange(1, count + 1, device=key.device) * _signed(_GAMMA)
    return _mix(key[:, None] + counter)


def uniform(key: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) of each key [B]: float32 [B, count], multiples of 2^-24."""
    return _shifted(words(key, count), 40).float() * 2.0**-24


def integers(key: Tensor, size: Tensor, count: int) -> Tensor:
    """`count` numbers below size [B], with replacement, of each key [B]: int64 [B, count]; size < 2^31."""
    return _scaled(_shifted(words(key, count), 32), size[:, None])


def permute(index: Tensor, size: Tensor | int, key: Tensor, rounds: int = 4) -> Tensor:
    """Elements of a random permutation of range(size), each by its place: no sort, no table.

    The first n places are n distinct elements in random order, whatever n is, for O(n). Each round is a
    bijection of range(size): a rotation, then two half-rounds of a Feistel network on (high, low), with
    low < 2^h and high < floor(size / 2^h), which leave the few elements beyond that product where they are.
    Unlike a network on a power of two it never leaves the range, so nothing has to be walked back into it.

    Args:
        index: places [B, N] (or [N], for all keys alike), int64, in [0, size).
        size: elements, below 2^31: [B] int64, or one number for all.
        key: [B] int64.
        rounds: 4 are enough from some 500 elements on, by the tests; 16 for any number of them.

    Returns:
        Elements [B, N] int64.
    """
    if isinstance(size, int):
        size = torch.full((1,), size, device=key.device)
    h = (torch.frexp(size.double()).exponent.long() // 2)[..., None]  # of 2^(bits - 1) <= size < 2^bits
    size = size[..., None]
    low_mask, high = (1 << h) - 1, size >> h
    whole = high << h
    constants = words(key, 3 * rounds)[..., None]
    x = index.expand(len(key), -1)
    for turn, first, second in zip(*(constants[:, i::3].unbind(1) for i in range(3)), strict=True):
        x = _wrapped(x + _scaled(_shifted(turn, 32), size), size)
        low = x & low_mask
        upper = _wrapped(_scaled(_hash(low, first), high).add_(x >> h), high)
        lower = _hash(upper, second).add_(low).bitwise_and_(low_mask)
        x = torch.where(x < whole, upper.bitwise_left_shift_(h).add_(lower), x)
    return x


def _hash(x: Tensor, key: Tensor) -> Tensor:
    """32 random bits of x under a key."""
    x = (x ^ key).mul_(_signed(_MIX1))
    x ^= x >> 32
    return x.mul_(_signed(_MIX2)).bitwise_right_shift_(32).bitwise_and_(2**32 - 1)


def _scaled(word: Tensor, size: Tensor) -> Tensor:
    """A word of 32 bits as a number below `size`."""
    return (word * size).bitwise_right_shift_(32)


def _wrapped(x: Tensor, size: Tensor) -> Tensor:
    """x modulo `size`, for x below 2 `size`, in place."""
    x -= size
    return x.add_((x >> 63).bitwise_and_(size))
