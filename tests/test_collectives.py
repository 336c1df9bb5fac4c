"""Measured links: the line through the times is the model's, the file is what the clock reads, bad files are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from refusals import refused

from dopt import InputError, Run, cluster
from dopt.cli import main
from dopt.cluster import links as of_links
from dopt.devices import collectives

BASE: dict[str, Any] = {"algorithm": "allreduce_sgd", "workers": 4, "learning_rate": 0.1, "problem": "quadratic"}
BASE |= {"steps": 2, "cluster": "constant"}


def written(path: Path, latency: Any = 1e-3, bandwidth: Any = 1e6) -> str:
    path.write_text(json.dumps({"latency": latency, "bandwidth": bandwidth}))
    return str(path)


@pytest.mark.parametrize("name", collectives.COLLECTIVES)
@pytest.mark.parametrize(("latency", "bandwidth"), [(2e-5, 3e9), (1e-3, 1e6), (0.0, 1e9), (1e-4, np.inf)])
def test_the_fit_finds_the_latency_and_bandwidth_that_made_the_times(
    name: str, latency: float, bandwidth: float
) -> None:
    c, n, sizes = collectives.COLLECTIVES[name], 4, [2**10, 2**16, 2**22]
    seconds = [c.rounds(n) * latency + c.factor(n) * size / bandwidth for size in sizes]
    found = collectives.fit(c.rounds(n), c.factor(n), sizes, seconds)
    np.testing.assert_allclose(found, (latency, bandwidth), rtol=1e-9, atol=1e-15)


def test_a_measured_ring_all_reduce_is_the_one_of_the_clock() -> None:
    c, n, size = collectives.COLLECTIVES["psum"], 6, 12345.0
    links = of_links.make(n, latency=1e-4, bandwidth=1e7)
    assert of_links.reduce_time(links, n, size) == pytest.approx(c.rounds(n) * 1e-4 + c.factor(n) * size / 1e7)


@pytest.mark.parametrize("name", collectives.COLLECTIVES)
def test_what_is_timed_exchanges_what_its_name_says(name: str) -> None:
    n = 4
    x = np.arange(n * 2, dtype=np.float32).reshape(n, 2)
    found = jax.vmap(lambda y: collectives.COLLECTIVES[name].once(y, 1, n), axis_name="workers")(x)
    expected = {"psum": np.tile(x.mean(0), (n, 1)), "all_gather": np.tile(x[1], (n, 1)), "ppermute": np.roll(x, 1, 0)}
    np.testing.assert_allclose(found, expected[name])


def test_the_command_writes_a_file_that_the_clock_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(collectives.SIZES, "cpu", (2**8, 2**12))
    path = tmp_path / "cluster.json"
    assert main(["doctor", "--collectives", "--devices", "2", "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for word in (*collectives.COLLECTIVES, "latency", "bandwidth", "cluster.links"):
        assert word in out
    said = json.loads(path.read_text())
    assert (said["devices"], set(said["collectives"])) == (2, set(collectives.COLLECTIVES))
    assert all(s > 0 for c in said["collectives"].values() for s in c["seconds"])
    links = cluster.make("constant", 4, 0, links=str(path)).links
    assert links.latency == said["latency"]
    assert links.bandwidth == (np.inf if said["bandwidth"] is None else said["bandwidth"])


def test_links_of_a_file_are_links_given_by_hand(tmp_path: Path) -> None:
    links = cluster.make("constant", 4, 0, links=written(tmp_path / "a.json")).links
    assert links == of_links.make(4, latency=1e-3, bandwidth=1e6)
    assert np.isinf(cluster.make("constant", 4, 0, links=written(tmp_path / "b.json", 0, None)).links.bandwidth)


def test_the_content_of_the_file_is_part_of_a_runs_identity(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    described = Run.from_dict(BASE | {"cluster.links": written(path)}).resolve()
    before = Run.from_dict(described.to_dict()).id
    written(path, bandwidth=2e6)
    assert Run.from_dict(described.to_dict()).id != before
    written(path)
    assert Run.from_dict(described.to_dict()).id == before
    assert "cluster.links" not in Run.from_dict(BASE).resolve().options


@pytest.mark.parametrize(
    ("content", "said"),
    {
        "no JSON": ("{", "is no JSON"),
        "no object": ("[1, 2]", "must be a JSON object"),
        "no bandwidth": ('{"latency": 1}', "must be a JSON object with latency and bandwidth"),
        "a word": ('{"latency": "1", "bandwidth": 1}', "latency must be finite"),
        "a negative latency": ('{"latency": -1, "bandwidth": 1}', "latency must be finite"),
        "an endless latency": ('{"latency": Infinity, "bandwidth": 1}', "latency must be finite"),
        "no rate": ('{"latency": 0, "bandwidth": 0}', "bandwidth must be positive"),
        "not a number": ('{"latency": 0, "bandwidth": NaN}', "bandwidth must be positive"),
        "a yes": ('{"latency": 0, "bandwidth": true}', "bandwidth must be positive"),
    }.values(),
)
def test_a_file_that_cannot_be_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"cluster\.links") as error:
        cluster.make("constant", 4, 0, links=str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_measured_or_read_is_one_line(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    refused(capsys, ["doctor", "--collectives", "--devices", "1"], "collectives: one device", "nothing to measure")
    refused(capsys, ["doctor", "--collectives", "--out", str(tmp_path / "no" / "c.json")], "out: no folder")
    run = ["run", *(f"--{name}={value}" for name, value in BASE.items())]
    refused(capsys, [*run, "--cluster.links", str(tmp_path / "none.json")], "cluster.links", "none.json")
    both = ["--cluster.links", written(tmp_path / "c.json"), "--cluster.latency", "1"]
    refused(capsys, [*run, *both], "cluster.latency: cluster.links gives it")
