"""A sweep file -> runs. The file speaks the W&B sweep schema, strictly: an unknown key is an error.

https://docs.wandb.ai/guides/sweeps/sweep-config-keys: method grid or random; parameters with value, values or a
distribution; metric with name, goal and target.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dopt.config import Run
from dopt.registry import did_you_mean
from dopt.types import InputError

KEYS = ("program", "command", "name", "description", "project", "entity", "method", "metric", "parameters", "run_cap")
METRIC_KEYS = ("name", "goal", "target")
PARAMETER_KEYS = ("value", "values", "distribution", "probabilities", "min", "max", "mu", "sigma", "q")


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was asked for, and the distinct runs that it means."""

    name: str
    runs: tuple[Run, ...]  # resolved, without duplicates, in the file's order
    varied: tuple[str, ...]  # parameters with more than one value, in the file's order
    metric: Mapping[str, Any]  # name, goal, target
    project: str
    merged: int  # runs left out, since they differ only in what their method does not read


def read(path: str | Path, changes: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep in a YAML file, with some parameters fixed to other values (`changes`, as `{"steps": 100}`).

    Raises:
      InputError: the file is missing, is not YAML, or says something that no run can mean.
    """
    path = Path(path)
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.yaml")]) if path.parent.is_dir() else ""
        raise InputError(f"sweep: no file {str(path)!r}{near}")
    try:
        content = load_yaml(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"sweep: {path} is not YAML ({' '.join(str(error).split())})") from error
    return parse(content, default_name=path.stem, changes=changes)


class _Loader(yaml.SafeLoader):
    """The safe loader, to which 1e-3 is a number, too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def load_yaml(text: str) -> Any:
    """YAML of plain data only."""
    return _Loader(text).get_single_data()


def parse(content: Any, default_name: str = "sweep", changes: Mapping[str, Any] | None = None) -> Sweep:
    """As `read`, of a dictionary."""
    if not isinstance(content, Mapping):
        raise InputError(f"sweep: must be a mapping with method and parameters, got {type(content).__name__}")
    _known("sweep", content, KEYS)
    parameters = content.get("parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        raise InputError("sweep.parameters: must map each parameter to value, values or a distribution")
    parameters = {**parameters, **{name: choice(value) for name, value in (changes or {}).items()}}
    for name, parameter in parameters.items():
        if not isinstance(name, str):
            raise InputError(f"sweep.parameters: a name must be a word, got {name!r}")
        if not isinstance(parameter, Mapping):
            raise InputError(
                f"sweep.parameters.{name}: must be a mapping such as `value: {parameter}`, got {parameter!r}"
            )
        _known(f"sweep.parameters.{name}", parameter, PARAMETER_KEYS)
    metric = content.get("metric") or {}
    _known("sweep.metric", metric, METRIC_KEYS)
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise InputError(f"sweep.metric.goal: must be minimize or maximize, got {metric['goal']!r}")
    if not isinstance(metric.get("target", 0.0), int | float):
        raise InputError(f"sweep.metric.target: must be a number, got {metric['target']!r}")
    method = content.get("method", "grid")
    if method == "grid":
        rows, varied = _grid(parameters)
    elif method == "random":
        rows, varied = _random(parameters, content.get("run_cap"))
    else:
        raise InputError(f"sweep.method: must be grid or random, got {method!r} (bayes needs the W&B agent)")
    distinct: dict[str, Run] = {}
    for row in rows:
        resolved = Run.from_dict(row).resolve(unread="drop")
        distinct.setdefault(resolved.id, resolved)
    runs = tuple(distinct.values())
    name = str(content.get("name", default_name))
    return Sweep(name, runs, varied, dict(metric), str(content.get("project", "dopt")), len(rows) - len(runs))


def choice(value: Any) -> dict[str, Any]:
    """A parameter of that value, or of each of several."""
    return {"values": list(value)} if isinstance(value, list | tuple) else {"value": value}


def grid(fixed: Mapping[str, Any], swept: Mapping[str, Sequence[Any]] | None = None) -> dict[str, Any]:
    """The parameters of a grid: `fixed` names with a value each (a list is one, too), `swept` ones with several."""
    return {name: {"value": x} for name, x in fixed.items()} | {
        name: {"values": list(x)} for name, x in (swept or {}).items()
    }


def _known(what: str, given: Any, known: Sequence[str]) -> None:
    if not isinstance(given, Mapping):
        raise InputError(f"{what}: must be a mapping with some of {', '.join(known)}, got {given!r}")
    for name in given:
        if name not in known:
            raise InputError(f"{what}: unknown key {name!r}{did_you_mean(str(name), known)}")


def _grid(parameters: Mapping[str, Mapping[str, Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    choices = {}
    for name, parameter in parameters.items():
        if "values" in parameter:
            values = parameter["values"]
            if not isinstance(values, list) or not values:
                raise InputError(
                    f"sweep.parameters.{name}.values: must be a list of at least one value, got {values!r}"
                )
            choices[name] = values
        elif "value" in parameter:
            choices[name] = [parameter["value"]]
        else:
            raise InputError(
                f"sweep.parameters.{name}: a grid needs value or values; distributions need method: random"
            )
    rows = [dict(zip(choices, row, strict=True)) for row in itertools.product(*choices.values())]
    return rows, tuple(name for name, values in choices.items() if len(values) > 1)


Draw = Callable[[np.random.Generator], Any]


def _random(parameters: Mapping[str, Mapping[str, Any]], cap: Any) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    if not isinstance(cap, int) or cap < 1:
        raise InputError(f"sweep.run_cap: a random sweep needs the number of runs, got {cap!r}")
    draws = {name: _draw(f"sweep.parameters.{name}", parameter) for name, parameter in parameters.items()}
    rng = np.random.default_rng(0)  # the same file means the same runs
    rows = [{name: draw(rng) for name, draw in draws.items()} for _ in range(cap)]
    varied = tuple(name for name in draws if len({str(row[name]) for row in rows}) > 1)
    return rows, varied


def _draw(what: str, p: Mapping[str, Any]) -> Draw:
    """How one parameter of a random sweep is drawn."""
    if "value" in p:
        return lambda rng: p["value"]
    kind = p.get(
        "distribution",
        "categorical"
        if "values" in p
        else "int_uniform"
        if isinstance(p.get("min"), int) and isinstance(p.get("max"), int)
        else "uniform",
    )
    if kind in ("categorical", "categorical_w_probabilities"):
        values, weights = p.get("values"), p.get("probabilities")
        if not isinstance(values, list) or not values:
            raise InputError(f"{what}.values: must be a list of at least one value, got {values!r}")
        if weights is not None and not _are_probabilities(weights, len(values)):
            raise InputError(f"{what}.probabilities: must be one for each value and sum to 1, got {weights!r}")
        return lambda rng: values[rng.choice(len(values), p=weights)]
    if kind == "constant":
        raise InputError(f"{what}.value: a constant needs its value")

    def number(name: str, default: float | None = None) -> float:
        value = p.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{what}.{name}: {kind} needs a number, got {value!r}")
        return float(value)

    if not isinstance(kind, str):
        raise InputError(f"{what}.distribution: must be a name, got {kind!r}")
    base, q = (kind.removeprefix("q_"), number("q", 1.0)) if kind.startswith("q_") else (kind, None)
    shapes: dict[str, Callable[[], Draw]] = {
        "uniform": lambda: _between(what, number("min"), number("max"), lambda rng, a, b: rng.uniform(a, b)),
        "int_uniform": lambda: _between(
            what, number("min"), number("max"), lambda rng, a, b: int(rng.integers(int(a), int(b) + 1))
        ),
        "log_uniform_values": lambda: _between(
            what,
            number("min"),
            number("max"),
            lambda rng, a, b: math.exp(rng.uniform(math.log(a), math.log(b))),
            positive=True,
        ),
        "log_uniform": lambda: _between(
            what, number("min"), number("max"), lambda rng, a, b: math.exp(rng.uniform(a, b))
        ),
        "normal": lambda: _bell(number("mu", 0.0), number("sigma", 1.0), lambda z: z),
        "log_normal": lambda: _bell(number("mu", 0.0), number("sigma", 1.0), math.exp),
    }
    if base not in shapes:
        raise InputError(f"{what}.distribution: unknown name {kind!r}{did_you_mean(str(kind), shapes)}")
    draw = shapes[base]()
    if q is None:
        return draw
    if not q > 0:
        raise InputError(f"{what}.q: must be positive, got {q:g}")
    return lambda rng: (int if q.is_integer() else float)(round(draw(rng) / q) * q)


def _are_probabilities(weights: Any, count: int) -> bool:
    return (
        isinstance(weights, list)
        and len(weights) == count
        and all(isinstance(w, int | float) and w >= 0 for w in weights)
        and abs(sum(weights) - 1) <= 1e-9
    )


def _between(what: str, a: float, b: float, draw: Callable[..., Any], positive: bool = False) -> Draw:
    if not a <= b or (positive and a <= 0):
        raise InputError(f"{what}: needs {'0 < ' if positive else ''}min <= max, got min={a:g}, max={b:g}")
    return lambda rng: draw(rng, a, b)


def _bell(mu: float, sigma: float, of: Callable[[float], float]) -> Draw:
    return lambda rng: of(float(rng.normal(mu, sigma)))
