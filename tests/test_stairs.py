"""A run goes down the stairs once: on its way from `dopt.run` to a method's update it seldom comes to a room that lies higher.

The floors are the layers of pyproject.toml. The run is followed through all its states, from what was asked for to what came
out: a function is on its way where it is given the run in one of them, and is passed once, where it is called first. Rooms
that know no run (the registry, graphs, matrices, files) are not on its way: what a room asks of them is its own affair.
"""

from __future__ import annotations

import sys
import threading
import tomllib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import pytest

import dopt
from dopt import Run
from dopt.config import Resolved
from dopt.config.resolve import _Resolving
from dopt.config.runs import Runs
from dopt.engine import Compiled, Group, Outcome, Outcomes
from dopt.engine.carry import Carry
from dopt.engine.program import Program
from dopt.engine.single import Result
from dopt.engine.slab import Slab
from dopt.facts import Facts
from dopt.facts.inputs import Inputs
from dopt.facts.method import Building

# lower them where you can, never raise them
CLIMBS = 9  # of the run, on its way to the update
TO_THE_END = 10  # of the run, until its result is there
ALL = (
    27  # of all functions, whether they know the run or not, until the update is called first: to measure its messages
)
UPWARD = 5  # pairs of functions, of which the first calls the second, which lies higher
STATES = (Run, _Resolving, Resolved, Runs, Facts, Building, Group, Program, Compiled, Slab, Inputs, Carry, Outcomes)
STATES += (Outcome, Result)
RUN = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "problem": "quadratic",
    "topology": "ring",
    "learning_rate": 0.1,
    "steps": 4,
}
UPDATE, LOOP = "gossip_sgd.<locals>.update", "dopt.engine.loop"


class Step(NamedTuple):
    """A function that is called first, and who called it."""

    module: str
    name: str
    caller: str | None  # module
    of_run: bool  # it is given the run
    arrives: bool  # it is the update, called by the loop


def floors() -> dict[str, int]:
    """Room -> its floor, 0 the lowest."""
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    layers = next(c["layers"] for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return {room.strip(): i for i, layer in enumerate(reversed(layers)) for room in layer.split("|")}


def room_of(module: str, rooms: Sequence[str]) -> str | None:
    """The room that a module lies in; None: in none that has a floor."""
    return next((room for room in rooms if f"{module}.".startswith(f"{room}.")), None)


def callers(frame: FrameType) -> list[FrameType]:
    """Those of a frame, the nearest first."""
    found, here = [], frame.f_back
    while here is not None:
        found.append(here)
        here = here.f_back
    return found


def is_run(given: object) -> bool:
    """Whether it is the run in one of its states, or a list of runs."""
    if isinstance(given, STATES):
        return True
    return type(given) in (list, tuple) and any(isinstance(one, STATES) for one in given)  # type: ignore[attr-defined]


def walk(call: Callable[[], object]) -> list[Step]:
    """The functions of dopt, in the order in which they are called first, in whatever thread."""
    folder, met, found = str(Path(dopt.__file__).parent), set[CodeType](), list[Step]()

    def look(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(folder):
            return
        arrives = code.co_qualname == UPDATE and any(f.f_globals.get("__name__") == LOOP for f in callers(frame))
        if code in met and not arrives:
            return
        before = [f for f in callers(frame) if f.f_code.co_filename.startswith(folder)]
        if any(f.f_code.co_name == "<module>" for f in before):  # a module is loaded
            return
        met.add(code)
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = (frame.f_locals.get(name) for name in names)
        caller = before[0].f_globals["__name__"] if before else None
        found.append(Step(frame.f_globals["__name__"], code.co_qualname, caller, any(map(is_run, given)), arrives))

    before = sys.getprofile(), threading.getprofile()
    sys.setprofile(look)
    threading.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])
    return found


def forget() -> None:
    """Let nobody remember what other tests have asked: who answers from memory asks no one further down."""
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "dopt"]:
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


@pytest.fixture(scope="module")
def way() -> list[Step]:
    run, asked = dopt.run, Run.from_dict(RUN)  # loaded before the walk, which makes loading slow
    forget()
    return walk(lambda: run(asked))


def climbs(steps: Sequence[Step], heights: dict[str, int]) -> list[str]:
    """The steps of the run, one after the other, of which the second lies higher."""
    rooms = [(room, step) for step in steps if step.of_run and (room := room_of(step.module, list(heights)))]
    return [
        f"{first.name} -> {second.name}"
        for (here, first), (there, second) in pairwise(rooms)
        if heights[there] > heights[here]
    ]


def upward(steps: Sequence[Step], heights: dict[str, int]) -> list[str]:
    """The calls, of whatever, by which a room calls one that lies higher."""
    found = []
    for step in steps:
        here, there = (None if name is None else room_of(name, list(heights)) for name in (step.caller, step.module))
        if here is not None and there is not None and heights[there] > heights[here]:
            found.append(f"{step.caller} -> {step.module}.{step.name}")
    return list(dict.fromkeys(found))


def test_a_step_up_is_a_climb_and_a_step_down_or_along_is_none() -> None:
    heights = {"a": 2, "b": 1, "c": 1, "d": 0}
    modules = ["a", "b.x", "c", "elsewhere", "d.y", "c.z", "a"]
    steps = [Step(module, module, None, True, False) for module in modules]
    assert climbs(steps, heights) == ["d.y -> c.z", "c.z -> a"]
    steps[4] = steps[4]._replace(of_run=False)  # the run does not come there
    assert climbs(steps, heights) == ["c.z -> a"]


def test_a_call_of_a_higher_room_is_upward() -> None:
    heights = {"a": 2, "b": 1}
    calls = [("a", "b.x"), ("b.x", "a.y"), ("b", "b.z"), (None, "a"), ("elsewhere", "a")]
    steps = [Step(callee, "f", caller, False, False) for caller, callee in calls]
    assert upward(steps, heights) == ["b.x -> a.y.f"]


def test_a_run_is_found_wherever_it_is_given() -> None:
    run = Run.from_dict(RUN)
    assert [is_run(given) for given in (run, [run], (1, run), "run", {"run": run}, None)] == [True] * 3 + [False] * 3


def test_a_run_goes_down_the_stairs_and_seldom_up(way: list[Step]) -> None:
    heights = floors()
    arrival = next(place for place, step in enumerate(way) if step.arrives)
    assert way[arrival].module == "dopt.algorithms.gossip.gossip_sgd"
    found, whole = climbs(way[:arrival], heights), climbs(way, heights)
    assert len(found) <= CLIMBS, f"{len(found)} climbs: {'; '.join(found)}"
    assert len(whole) <= TO_THE_END, f"{len(whole)} climbs: {'; '.join(whole)}"


def test_all_functions_together_seldom_go_up(way: list[Step]) -> None:
    """Each visit to a room that knows no run, as to the registry, and the way back from it is a climb here."""
    first = next(place for place, step in enumerate(way) if step.name == UPDATE)
    found = climbs([step._replace(of_run=True) for step in way[: first + 1]], floors())
    assert len(found) <= ALL, f"{len(found)} climbs: {'; '.join(found)}"


def test_a_room_calls_higher_ones_only_by_what_these_hand_down(way: list[Step]) -> None:
    found = upward(way, floors())
    assert len(found) <= UPWARD, f"{len(found)} calls: {'; '.join(found)}"
