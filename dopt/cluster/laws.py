"""Laws of how long a computation takes, and profiles of how fast each worker is. A new one is one function here.

A law is the quantile function of a draw of mean 1 s: all laws share the uniform number that it is given, so that methods
and laws can be compared on the same luck.
"""

from __future__ import annotations

import numpy as np

from dopt.registry import Registry
from dopt.types import InputError

LAWS = Registry("cluster")
PROFILES = Registry("cluster.profile")


# -- laws: quantile functions of mean 1, finite on all of [0, 1) ------------------------------------------------------


@LAWS.register(source="deterministic compute times")
def constant(u: np.ndarray) -> np.ndarray:
    """Every computation takes the same time."""
    return np.ones_like(u)


@LAWS.register(source="memoryless compute times, as in Dutta et al. 2018, 1803.01113")
def exponential(u: np.ndarray) -> np.ndarray:
    """Exponential, which is memoryless: -log(1 - u)."""
    return -np.log1p(-u)


@LAWS.register(source="Dutta et al. 2018, 1803.01113")
def shifted_exponential(u: np.ndarray, *, minimum: float = 0.5) -> np.ndarray:
    """`minimum` plus an exponential rest: minimum + (1 - minimum) Exp."""
    if not 0 <= minimum < 1:
        raise InputError(f"cluster.minimum: must lie in [0, 1), a part of the mean of 1 s, got {minimum}; 0.5 is usual")
    return minimum + (1 - minimum) * exponential(u)


@LAWS.register(source="many small causes that multiply; long tails as measured in Chen et al. 2016, 1604.00981")
def lognormal(u: np.ndarray, *, sigma: float = 0.5) -> np.ndarray:
    """exp(σZ - σ²/2), Z standard normal."""
    # beyond, the mean comes from draws so rare that no run meets one
    if not 0 < sigma <= 5:
        raise InputError(f"cluster.sigma: must lie in (0, 5], got {sigma}; 0.5 is usual")
    from scipy.special import ndtri

    return np.exp(sigma * ndtri(u) - sigma**2 / 2)


@LAWS.register(source="Ali et al. 2000, task execution times; for training Hakimi et al. 2019, 1907.11612")
def gamma(u: np.ndarray, *, shape: float = 2.0) -> np.ndarray:
    """Gamma of coefficient of variation 1/√shape: for whole shapes, the mean of so many exponential times."""
    if not 0.01 <= shape < np.inf:
        raise InputError(f"cluster.shape: must be finite and at least 0.01, got {shape}; 2 is usual")
    from scipy.special import gammaincinv

    return gammaincinv(shape, u) / shape


@LAWS.register(source="Dutta et al. 2018, 1803.01113")
def pareto(u: np.ndarray, *, shape: float = 2.5) -> np.ndarray:
    """Heavy tails: P(draw > t) = (t_min/t)^shape, t_min = 1 - 1/shape."""
    if not 1 < shape < np.inf:
        raise InputError(f"cluster.shape: a Pareto law has a finite mean only above 1, got {shape}; 2.5 is usual")
    return (1 - 1 / shape) * (1 - u) ** (-1 / shape)


@LAWS.register(source="Tyurin-Richtárik 2023, 2305.12387")
def half_normal(u: np.ndarray) -> np.ndarray:
    """|Z| of a normal Z, of mean 1."""
    from scipy.special import erfinv

    return np.sqrt(np.pi) * erfinv(u)


@LAWS.register(source="bounded jitter")
def uniform(u: np.ndarray, *, width: float = 0.5) -> np.ndarray:
    """Uniform on [1 - width, 1 + width]."""
    if not 0 <= width <= 1:
        raise InputError(f"cluster.width: must lie in [0, 1], got {width}; 0.5 is usual")
    return 1 + width * (2 * u - 1)


@LAWS.register(source="measured times: the seconds of the file, not scaled to a mean of 1 s")
def trace(u: np.ndarray, seconds: np.ndarray, *, file: str) -> np.ndarray:
    """Each worker's own times, from a CSV of worker,read_version,write_version,seconds."""
    return np.sort(seconds)[(u * len(seconds)).astype(np.int64)]


# -- profiles: [workers] scale in seconds, or (scale, shift) ------------------------------------------------------------


@PROFILES.register(source="homogeneous machines")
def equal(workers: int) -> np.ndarray:
    """All workers equally fast."""
    return np.ones(workers)


@PROFILES.register(source="spread from 1 to 2")
def linear(workers: int) -> np.ndarray:
    """From 1 to 2 in even steps: 1 + i/(n-1)."""
    return np.linspace(1, 2, workers) if workers > 1 else np.ones(1)


@PROFILES.register(source="Tyurin-Richtárik 2023, 2305.12387")
def sqrt(workers: int) -> np.ndarray:
    """1 + √i for i = 1..n."""
    return 1 + np.sqrt(np.arange(1, workers + 1))


@PROFILES.register(source="Maranjyan, Tyurin, Richtárik 2025, 2501.16168")
def jittered_sqrt(workers: int) -> tuple[np.ndarray, np.ndarray]:
    """A fixed 1 + √i plus draws of mean √(2(i+1)/π), i = 0..n-1: with half_normal, 1 + √i + |N(0, i+1)|."""
    i = np.arange(workers)
    return np.sqrt(2 * (i + 1) / np.pi), 1 + np.sqrt(i)
