"""Eight virtual CPU devices and a cache of one's own, before JAX starts."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("DOPT_CACHE_DIR", tempfile.mkdtemp(prefix="dopt-test-cache-"))
