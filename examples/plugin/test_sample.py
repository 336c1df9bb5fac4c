"""What is registered holds what dopt's own plug-ins hold."""

import dopt_sample  # noqa: F401  registers them
import pytest

import dopt.testing


@pytest.mark.parametrize(
    ("kind", "name"), [("method", "careful_gossip"), ("topology", "two_rings"), ("compressor", "half_precision")]
)
def test_it_conforms(kind: str, name: str) -> None:
    dopt.testing.check(kind, name)
