"""my_sweep asks for runs that there are, and they end."""

from pathlib import Path

import dopt

FILE = Path(__file__).with_name("my_sweep.yaml")


def test_every_run_ends_and_has_a_loss(tmp_path: Path) -> None:
    results = dopt.sweep(FILE, results=tmp_path / "results", set={"steps": 10, "seed": 0}, progress=False)
    assert results.missing == 0
    assert not results.runs["diverged"].any()
    assert results.runs["final.loss"].notna().all()
    assert set(results.runs["algorithm"]) == {"gossip_sgd", "allreduce_sgd"}
