"""What cannot be started leaves its tests out, unless it was required."""

import pytest
from required import require


@pytest.mark.parametrize(
    ("required", "what", "outcome"),
    [
        ("", "slurm", pytest.skip.Exception),
        ("ray", "slurm", pytest.skip.Exception),
        ("ray,slurm", "slurm", pytest.fail.Exception),
        ("slurm", "slurm", pytest.fail.Exception),
    ],
)
def test_what_is_required_fails_where_it_lacks(
    required: str, what: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPT_REQUIRE", required)
    with pytest.raises(outcome, match="no daemon"):
        require(what, "no daemon")
