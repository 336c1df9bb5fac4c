"""Eight virtual CPU devices and a cache of one's own, before JAX starts; and no test fails since the machine is busy."""

import gc
import os
import signal
import tempfile

import hurry
from hypothesis import settings

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ.pop("HURRY", None):  # as `make test` asks; helpers inherit what comes of it
    os.environ["XLA_FLAGS"] = f"{hurry.FLAGS} {os.environ.get('XLA_FLAGS', '')}"
    # many tests compile what another one has compiled
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="dopt-test-compiled-"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("DOPT_CACHE_DIR", tempfile.mkdtemp(prefix="dopt-test-cache-"))
settings.register_profile("dopt", deadline=None)
settings.load_profile("dopt")
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in the background of a shell: tests of signals would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is there now stays to the end: whoever looks for garbage need not look at it, nor as often as by default."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
