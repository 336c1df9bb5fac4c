"""No test leaves processes behind."""

from collections.abc import Iterator

import pytest

from . import processes


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    while processes.started:
        with processes.started.pop() as process:
            process.kill()
            process.communicate()
