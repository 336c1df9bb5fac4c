"""Dolan and Moré's profile: in which share of all cells a method is within a factor τ of the best one there.

A cell is one choice of all other parameters, and each method has its best learning rate in it. A method that does not read a
parameter has one value in all of its cells. (Dolan, Moré 2002, Mathematical Programming 91.)
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dopt.plot.asked import Asked, best, differing, values, where_is
from dopt.plot.kind import Kind
from dopt.plot.sheet import Picture
from dopt.plot.strokes import ticks, told_apart
from dopt.plot.style import AXES, said
from dopt.sweeps.results import Results
from dopt.sweeps.several import SWEEP
from dopt.types import InputError

WIDEST = 100.0  # the largest factor that is drawn


def rows(asked: Asked) -> pd.DataFrame:
    """A row for each step of each curve: panel, the method, factor, share, cells (their number)."""
    target = asked.needed_target()
    solver = asked.main
    costs = [_costs(asked, one, solver) for one in asked.sweeps]
    # cells of several sweeps are more cells, unless the sweeps are what is compared
    ratios = _over_best(pd.concat(costs, axis=0 if solver == SWEEP else 1).fillna(np.inf))
    if not np.isfinite(ratios).any(axis=None):
        raise InputError(f"plot: no run reaches {asked.y} {target:g}; give a target that some run reaches")
    found = []
    for name, own in ratios.iterrows():
        factors = np.sort(own.to_numpy(float))
        factors = factors[np.isfinite(factors)]
        at = np.unique(np.concatenate([[1.0], factors]))
        share = np.searchsorted(factors, at, side="right") / ratios.shape[1]
        found.append(pd.DataFrame({"panel": "", solver: name, "factor": at, "share": share, "cells": ratios.shape[1]}))
    return pd.concat(found, ignore_index=True)


def _over_best(costs: pd.DataFrame) -> pd.DataFrame:
    """Over the best of each cell; infinite where nobody gets there."""
    least = costs.min(axis=0)
    ratios = costs.div(least, axis=1).where(costs.gt(least, axis=1), 1.0)  # the best is 1, also where it costs nothing
    return ratios.where(np.isfinite(costs), np.inf)


def _costs(asked: Asked, one: Results, solver: str) -> pd.DataFrame:
    """[solvers, cells] what each costs; infinite: not reached."""
    others = [name for name in differing(one) if name != solver]
    told = best(one, [solver, *others], asked.x)
    keys = told[others].drop_duplicates()
    whole = keys[keys.notna().all(axis=1)] if others else keys
    cells = (whole if len(whole) else keys).to_dict("records") or [{}]
    costs = {}
    for cell in cells:
        fits = np.ones(len(told), bool)
        for name, value in cell.items():
            fits &= told[name].isna().to_numpy() | where_is(told[name], value)
        own = told[fits].groupby(solver, sort=False, dropna=False)["to_target"].min()
        costs["" if solver == SWEEP else one.name, str(cell)] = own
    return pd.DataFrame(costs).fillna(np.inf)


def draw(picture: Picture, asked: Asked) -> None:
    """Stairs that end at the share that a method reaches at all."""
    rows, solver = picture.rows, asked.main
    names = values(rows[solver])
    labels = [said(value) for value in names]
    (axes,) = picture.panels([""], tall=0.5, lines=picture.lines_of_key(labels))
    most = min(WIDEST, 1.3 * float(rows["factor"].max())) if rows["factor"].max() > 1 else 2.0
    for value, label, look in zip(names, labels, told_apart(names), strict=True):
        own = rows[where_is(rows[solver], value)]
        at = np.append(own["factor"], most)
        share = np.append(own["share"], own["share"].iloc[-1])
        inside = at <= most
        axes.step(at[inside], share[inside], where="post", label=label, **{**look, "markevery": 0.15}, clip_on=False)
    axes.set(xlim=(1, most), ylim=(0, 1.02))
    if most > 3:
        axes.set_xscale("log")
        ticks(axes.xaxis, [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100) if tick <= most])
    what = f"{AXES[asked.x]} to {said(asked.y)} {asked.needed_target():g}"
    picture.label([axes], f"τ: {what}, over the best's", "share of cells within τ")
    picture.key([axes], said(solver))
    picture.caption(f"{asked.of_medians}; {int(rows['cells'].iloc[0])} cells")


profile = Kind(
    "in which share of cells a method is within a factor of the best (Dolan, Moré)",
    frozenset({"x", "by"}),
    rows,
    draw,
)
