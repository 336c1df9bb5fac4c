"""What do eight workers do all day? The first 20 seconds of sync, SSP, async, gossip and AD-PSGD as a Gantt chart.

Ours: the picture that lectures draw by hand, from the clocks of runs. Computations take exponential times of mean 1 s,
the same for all methods, and each message 0.1 s; all-reduce goes through a server, as SSP and async do. With a barrier
workers wait for the slowest of eight: 59 % of their time, which is 1 - 1/2.72 of what is not spent on messages, 2.72 s
being the expected maximum. A worker that waits for two neighbours on a ring waits 49 %: a late worker still holds up
everybody, but only little by little. With a slack of 3 steps it is 22 %. Async and AD-PSGD never wait; all that is lost
there are messages, two of 0.1 s for each computation, or one. The price is not in the picture: in 1200 s async workers
drift more than a hundred computations apart, under SSP never more than 3.

Differs: no paper has this figure. AD-PSGD's passive partner averages without being held up, and gossip's two messages come
one after the other. Percentages above are means over ten runs of 1200 s; those in the bars are of the seconds that are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dopt import Results, cluster, theory
from dopt.facts import wiring
from dopt.facts.timetable import timetable
from dopt.figures import Claim
from dopt.plot import gantt, strokes
from dopt.plot.sheet import Picture, blank
from dopt.schedule import Schedule, intervals
from dopt.schedule import table as kinds
from dopt.sweeps.spec import grid

WORKERS, SLACK, LATENCY = 8, 3, 0.1
SHORT, LONG = 20.0, 1200.0  # seconds that are drawn, and that claims are averaged over
# method -> (name, its fields)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "allreduce_sgd": ("sync", {"cluster.reduce": "server"}),
    "ssp_sgd": (f"SSP, slack {SLACK}", {"algorithm.slack": SLACK}),
    "async_sgd": ("async", {}),
    "gossip_sgd": ("gossip on a ring", {"topology": "ring"}),
    "ad_psgd": ("AD-PSGD on a ring", {"topology": "ring"}),
}
STATES = (kinds.COMPUTING, kinds.SENDING, kinds.WAITING)


def _part(method: str, seconds: float, seeds: int) -> dict[str, Any]:
    common = {
        "algorithm": method,
        "problem": "quadratic",
        "problem.dim": 2,
        "workers": WORKERS,
        "cluster": "exponential",
        "cluster.latency": LATENCY,
        "learning_rate": 0.01,
        "seconds": seconds,
        "metrics": ["loss"],
    }
    return {"parameters": grid(common | METHODS[method][1], {"seed": range(seeds)})}


SWEEPS = {
    f"{length}_{method}": _part(method, seconds, seeds)
    for length, seconds, seeds in (("drawn", SHORT, 1), ("long", LONG, 10))
    for method in METHODS
}


def schedules(results: Mapping[str, Results], length: str, method: str) -> Iterator[tuple[str, Schedule]]:
    """Each run's id, and its clock once more: a message takes its latency, whatever its size."""
    part = results[f"{length}_{method}"]
    for identity in part.runs["id"]:
        run = part.run(identity)
        yield identity, timetable(run, None if run.topology is None else wiring.matrix(run))


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """A row per interval of the drawn runs: who, what, from when to when (seconds)."""
    rows = []
    for method in METHODS:
        for identity, line in schedules(results, "drawn", method):
            worker, state, begin, end = intervals(line)
            told = {"method": method, "worker": worker, "state": state, "begin": begin, "end": end, "ids": identity}
            rows.append(pd.DataFrame(told))
    return pd.concat(rows, ignore_index=True)


def shares(worked: pd.DataFrame) -> pd.Series:
    """Of the workers' time, the part in each state."""
    spent = (worked["end"] - worked["begin"]).groupby(worked["state"]).sum()
    return spent.reindex(STATES, fill_value=0.0) / spent.sum()


def draw(results: Mapping[str, Results]) -> Picture:
    """A Gantt chart for each method, and the shares of time of all."""
    rows = table(results)
    figure = blank("page", 3.2)
    (first, bars), *below = figure.subplots(3, 2)
    panels = [first, *np.ravel(below)]
    figure.draw_without_rendering()  # the charts' rims and ticks are as fine as their panels are wide
    for axes, (method, (name, _)) in zip(panels, METHODS.items(), strict=True):
        _, line = next(schedules(results, "drawn", method))
        gantt.gantt(axes, line)
        axes.set_title(f"{name}: {line.applied.sum()} gradients", loc="left", pad=11)
        axes.set_yticks([])
        axes.set_ylabel(f"workers 1..{WORKERS}", fontsize=6.5)
        axes.set_xlabel("simulated seconds" if axes in panels[3:] else "")
        axes.tick_params(labelbottom=axes in panels[3:])
    for place, method in enumerate(METHODS):
        parts = {str(state): float(share) for state, share in shares(rows[rows["method"] == method]).items()}
        strokes.shares(bars, place, parts, gantt.LOOKS, {kinds.COMPUTING: "white"})
    bars.set_yticks(
        range(len(METHODS)), [name.split(" on ")[0].split(",")[0] for name, _ in METHODS.values()], fontsize=6.5
    )
    bars.set(xlim=(0, 1), ylim=(len(METHODS) - 0.5, -0.5), xticks=[])
    bars.set_title(f"% of {SHORT:g} s; exponential times, messages {LATENCY:g} s", loc="left")
    bars.tick_params(axis="y", length=0)
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    gantt.legend(figure, panels[0])
    return figure


# -- what can be read off the intervals --


def leads(line: Schedule) -> np.ndarray:
    """[n, n] by how many computations worker i is ahead of j when i begins one, the most in the schedule."""
    told, near = intervals(line), 1e-9  # seconds: what ends when another begins has ended
    own = [told.worker == i for i in range(line.workers)]
    begins = [np.sort(told.begin[mine & (told.kind == kinds.COMPUTING)]) for mine in own]
    ends = [np.sort(told.end[mine & (told.kind == kinds.COMPUTING)]) for mine in own]
    return np.array(
        [
            [(np.arange(len(b)) - np.searchsorted(e, b + near, side="right")).max(initial=0) for e in ends]
            for b in begins
        ]
    )


def summary(results: Mapping[str, Results], method: str) -> dict[str, Any]:
    """Of the long runs: shares of time (mean over seeds), updates a second, and the largest leads."""
    each, most, rate = [], [], []
    for _, line in schedules(results, "long", method):
        told = intervals(line)
        each.append(shares(pd.DataFrame({"state": told.kind, "begin": told.begin, "end": told.end})))
        most.append(leads(line))
        rate.append(line.steps / line.end)
    return {**pd.concat(each, axis=1).mean(axis=1), "leads": np.max(most, axis=0), "rate": float(np.mean(rate))}


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """Shares of time against closed forms, who waits how long and how far workers are apart, from the intervals of long runs."""
    of = {method: summary(results, method) for method in METHODS}
    waits = {method: float(found[kinds.WAITING]) for method, found in of.items()}
    idle = {method: waits[method] / (waits[method] + float(found[kinds.COMPUTING])) for method, found in of.items()}
    slowest = theory.order_statistic_mean(cluster.LAWS["exponential"].make, WORKERS, WORKERS)
    round_trip = 2 * LATENCY
    apart = {method: found["leads"] for method, found in of.items()}
    ring = np.abs(np.subtract.outer(np.arange(WORKERS), np.arange(WORKERS)))
    neighbours = np.isin(ring, (1, WORKERS - 1))
    sync, ssp, free, gossip, pairs = METHODS
    rows = table(results)
    busy = [rows[rows["method"] == method] for method in METHODS]
    whole = [float((part["end"] - part["begin"]).sum()) for part in busy]
    ran = max(abs(_run_steps(results, m) - next(schedules(results, "drawn", m))[1].steps) for m in METHODS)
    percent = {"tolerance": 0.03}
    return [
        Claim(
            "sync: waiting, as a share of computing and waiting: 1 - mean/expected maximum of 8",
            1 - 1 / slowest,
            idle[sync],
            **percent,
        ),
        Claim(
            "sync: steps a second: 1/(expected maximum + 2 ℓ)", 1 / (slowest + round_trip), of[sync]["rate"], **percent
        ),
        Claim("async: share of waiting", 0, waits[free], absolute=1e-9),
        Claim(
            "async: share of computing: 1/(1 + 2 ℓ)", 1 / (1 + round_trip), float(of[free][kinds.COMPUTING]), **percent
        ),
        Claim("async: updates a second: n/(1 + 2 ℓ)", WORKERS / (1 + round_trip), of[free]["rate"], **percent),
        Claim("AD-PSGD: share of waiting", 0, waits[pairs], absolute=1e-9),
        Claim(
            "AD-PSGD: share of computing: 1/(1 + ℓ)", 1 / (1 + LATENCY), float(of[pairs][kinds.COMPUTING]), **percent
        ),
        Claim(
            "waiting, as a share of computing and waiting, sync over gossip",
            1.1,
            idle[sync] / idle[gossip],
            ">=",
            tolerance=0.01,
            null=1,
        ),
        Claim("share of waiting, gossip over SSP", 1.1, waits[gossip] / waits[ssp], ">=", tolerance=0.01, null=1),
        Claim("share of waiting, SSP less async", 0.1, waits[ssp] - waits[free], ">="),
        Claim("sync: computations that a worker is ahead of another, the most", 0, apart[sync].max()),
        Claim("SSP: computations that a worker is ahead of the slowest, the most: s", SLACK, apart[ssp].max()),
        Claim("gossip: of a neighbour, the most", 0, apart[gossip][neighbours].max()),
        Claim("gossip: of anyone, at most the diameter less one", WORKERS // 2 - 1, apart[gossip].max(), "<="),
        Claim("async: of another, the most, which grows for ever", 5 * SLACK, apart[free].max(), ">="),
        Claim(
            "drawn: seconds of all intervals of a method, n x 20, the largest miss",
            0,
            max(abs(w - WORKERS * SHORT) for w in whole),
            absolute=1e-6,
        ),
        Claim("drawn: updates, the runs' against the charts', the largest miss", 0, ran),
    ]


def _run_steps(results: Mapping[str, Results], method: str) -> int:
    return int(results[f"drawn_{method}"].history["step"].max())
