"""A run goes down the stairs once: on the way from `dopt.run` to a method's update it rarely comes to a room that lies higher.

The floors are the layers of pyproject.toml. The way leads past each function once, where it is called first.
"""

from __future__ import annotations

import sys
import threading
import tomllib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType

import pytest

import dopt
from dopt import Run

CLIMBS = 32  # lower it where you can, never raise it
RUN = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "problem": "quadratic",
    "topology": "ring",
    "learning_rate": 0.1,
    "steps": 4,
}


def floors() -> dict[str, int]:
    """Room -> its floor, 0 the lowest."""
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    layers = next(c["layers"] for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return {room.strip(): i for i, layer in enumerate(reversed(layers)) for room in layer.split("|")}


def room_of(module: str, rooms: Sequence[str]) -> str | None:
    """The room that a module lies in; None: in none that has a floor."""
    return next((room for room in rooms if f"{module}.".startswith(f"{room}.")), None)


class ArrivedError(Exception):
    pass


def walk(call: Callable[[], object], end: Callable[[CodeType], bool]) -> list[str]:
    """The modules of dopt's functions, in the order in which these are called first, in whatever thread, until the `end`."""
    folder, met, found = str(Path(dopt.__file__).parent), set[CodeType](), list[str]()

    def look(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code not in met and code.co_filename.startswith(folder) and not loads(frame, folder):
            met.add(code)
            found.append(frame.f_globals["__name__"])
            if end(code):
                raise ArrivedError

    before = sys.getprofile(), threading.getprofile()
    sys.setprofile(look)
    threading.setprofile(look)
    try:
        with pytest.raises(ArrivedError):
            call()
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])
    return found


def loads(frame: FrameType, folder: str) -> bool:
    """Whether it is called while a module of the folder is loaded."""
    here: FrameType | None = frame
    while here is not None and not (here.f_code.co_name == "<module>" and here.f_code.co_filename.startswith(folder)):
        here = here.f_back
    return here is not None


def climbs(modules: Sequence[str], heights: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of rooms, one after the other, of which the second lies higher."""
    rooms = [room for module in modules if (room := room_of(module, list(heights)))]
    return [(here, there) for here, there in pairwise(rooms) if heights[there] > heights[here]]


def test_a_step_up_is_a_climb_and_a_step_down_or_along_is_none() -> None:
    heights = {"a": 2, "b": 1, "c": 1, "d": 0}
    assert climbs(["a", "b.x", "c", "elsewhere", "d.y", "c.z", "a"], heights) == [("d", "c"), ("c", "a")]


def test_a_run_goes_down_the_stairs_and_seldom_up() -> None:
    heights = floors()
    run = dopt.run  # loaded before the walk, which makes loading slow
    modules = walk(lambda: run(Run.from_dict(RUN)), lambda code: code.co_qualname == "gossip_sgd.<locals>.update")
    found = climbs(modules, heights)
    assert modules[-1] == "dopt.algorithms.gossip.gossip_sgd"
    assert len(found) <= CLIMBS, f"{len(found)} climbs: {'; '.join(f'{here} -> {there}' for here, there in found)}"
