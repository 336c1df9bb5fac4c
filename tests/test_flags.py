"""A run gives the same numbers whatever JAX's own flags say, or is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import dopt
from dopt import draws, flags
from dopt.types import InputError

ODD = {
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DISABLE_JIT": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEBUG_INFS": "1",
    "JAX_TRANSFER_GUARD": "disallow",
}
# a start, a batch, a loss that draws, an optimizer that draws, and a user's own key and product in the loss
RUN = """
import jax, jax.numpy as jnp, numpy as np, dopt
def loss(x, batch, key):
    own = jax.random.normal(jax.random.key(3), x.shape, jnp.float32)
    drawn = own if key is None else own + jax.random.normal(key, x.shape, jnp.float32)
    return jnp.mean((batch @ x) ** 2) + (x - drawn) @ (x - drawn)
init = lambda key: jnp.stack(jnp.split(jax.random.normal(key, (6,)), 3)).sum(1)
data = np.random.default_rng(0).standard_normal((2, 4, 3))
run = dopt.Run(algorithm="local_sgd", workers=2, learning_rate=0.05, steps=4, batch_size=2, optimizer="noisy_sgd")
print(dopt.run(run, problem=dopt.Problem(init, loss, data)).history["loss"].tolist())
"""


def test_jax_flags_in_the_environment_change_no_number(capsys: pytest.CaptureFixture) -> None:
    exec(RUN, {})
    here = capsys.readouterr().out
    environment = os.environ | ODD
    there = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout == here


def test_keys_of_starts_are_jax_keys_of_the_seed() -> None:
    for seed in (0, 7, 2**31 - 1):
        usual = jax.random.key_data(jax.random.key(seed, impl=flags.PRNG))
        np.testing.assert_array_equal(jax.random.key_data(draws.start(np.int32(seed))), usual)


def test_all_keys_name_their_implementation() -> None:
    for key in (draws.start(0), draws.key(0, 1, 2)):
        assert str(jax.random.key_impl(key)) == flags.PRNG


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("XLA_FLAGS", "--xla_foo=1 --xla_cpu_enable_fast_math=true"),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math"),
        ("XLA_FLAGS", "--xla_gpu_enable_fast_min_max=True"),
        ("NVIDIA_TF32_OVERRIDE", "1"),
    ],
)
def test_compilers_that_may_change_numbers_are_refused(name: str, value: str) -> None:
    with pytest.raises(InputError, match=name):
        flags.check({name: value})


def test_usual_environments_pass() -> None:
    flags.check({"XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_cpu_enable_fast_math=false"})
    flags.check({"NVIDIA_TF32_OVERRIDE": "0"})


def test_an_offset_of_all_seeds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(flags.UNFIXED, "jax_random_seed_offset", 1)  # as if the flag were not at its usual value
    with pytest.raises(InputError, match="JAX_RANDOM_SEED_OFFSET"):
        dopt.run(dopt.Run(algorithm="allreduce_sgd", workers=2, learning_rate=0.1, steps=1, problem="quadratic"))
