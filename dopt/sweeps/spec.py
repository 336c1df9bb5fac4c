"""A sweep file -> runs. The file speaks the W&B sweep schema, strictly: an unknown key is an error.

https://docs.wandb.ai/guides/sweeps/sweep-config-keys: method grid or random; parameters with value, values or a
distribution; metric with name, goal and target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dopt import code, metrics, plugins
from dopt.config import Run, Runs
from dopt.data import SETS
from dopt.problems import PROBLEMS
from dopt.registry import coerce, did_you_mean
from dopt.sweeps import plain
from dopt.sweeps.named import located
from dopt.sweeps.points import Points, constant, listed, product, runs_of
from dopt.text import quoted, shown
from dopt.types import InputError

KEYS = ("program", "command", "name", "description", "project", "entity", "method", "metric", "parameters", "run_cap")
METRIC_KEYS = ("name", "goal", "target", "stays")
IMPORTS = "sweep.parameters.imports"
FIXED = ("value", "values", "probabilities")
RANGE = ("min", "max")
BELL = ("mu", "sigma")
PARAMETER_KEYS = (*FIXED, "distribution", *RANGE, *BELL, "q")
MOST = 10**6  # runs of a sweep
WIDEST = 2**62  # whole numbers that are drawn


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was asked for, and the distinct runs that it means."""

    name: str
    runs: Runs  # without duplicates, in the file's order
    varied: tuple[str, ...]  # parameters with more than one value, in the file's order
    metric: Mapping[str, Any]  # name, goal, target, stays
    project: str
    merged: int  # runs left out, since they differ only in what their method does not read
    left_out: int = 0  # points of a grid past its run_cap
    is_random: bool = False
    text: str = ""  # the file, where somebody wants to keep it (`written`)

    def words(self) -> str:
        """How many runs it has, and what became of the others."""
        kept = len(self.runs) + self.merged
        cap = f" (run_cap: the first {kept} points of {kept + self.left_out})" * bool(self.left_out)
        return f"{self.name}: {len(self.runs)} runs" + f" ({self.merged} more merged)" * bool(self.merged) + cap


def read(path: str | Path, changes: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep in a YAML file, or of that name, with some parameters fixed to other values (`changes`, as `{"steps": 100}`).

    Raises:
      InputError: the file is missing, is not YAML, or says something that no run can mean.
    """
    return parse(content_of(path), default_name=Path(path).stem, changes=changes)


def content_of(path: str | Path) -> Any:
    """What a sweep file says, wherever it is read again: the files that it imports are named by absolute paths.

    Raises:
      InputError: the file is missing, or is not YAML.
    """
    content, folder = plain.read(path), located(path).absolute().parent
    named = imports_of(content)
    if not named:
        return content
    value = {"value": plugins.located(named, folder)}
    return {**content, "parameters": {**content["parameters"], "imports": value}}


def imports_of(content: Any) -> list[str]:
    """The files and modules that a sweep imports, as it names them."""
    match content:
        case {"parameters": {"imports": said}}:
            if not isinstance(said, Mapping) or set(said) != {"value"}:
                raise InputError(f"{IMPORTS}: must have one `value`, a list of files and modules that all runs share")
            return plugins.words(said["value"], IMPORTS)
    return []


def written(source: str | Path | Mapping[str, object], changes: Mapping[str, object] | None = None) -> str:
    """A sweep as the text of a file: word for word, or as YAML of a dictionary; and what was changed, as a comment at its end.

    Nothing is returned for a dictionary of more than plain data.
    """
    if not isinstance(source, Mapping):
        text = plain.text(source)
    else:
        try:
            text = yaml.safe_dump(dict(source), sort_keys=False, allow_unicode=True, width=120)
        except yaml.YAMLError:
            return ""
    said = [shown(f"# run with --set {name}={value}") for name, value in (changes or {}).items()]
    return "\n".join([text.rstrip("\n"), *said]) + "\n"


def load_yaml(text: str) -> Any:
    """YAML of plain data only."""
    return plain.load(text, "sweep: the text")


def parse(content: Any, default_name: str = "sweep", changes: Mapping[str, Any] | None = None) -> Sweep:
    """As `read`, of a dictionary."""
    if not isinstance(content, Mapping):
        raise InputError(f"sweep: must be a mapping with method and parameters, got {type(content).__name__}")
    _known("sweep", content, KEYS)
    name = _word("name", content.get("name"), default_name)
    project = _word("project", content.get("project"), "dopt")
    metric = metric_of(content.get("metric"))
    if "imports" in (changes or {}):
        raise InputError("imports: is not a parameter of a run; name files and modules with --import")
    plugins.load(imports_of(content))
    points = _points(content, _parameters(content.get("parameters"), changes or {}))
    runs = runs_of(points)
    if "name" in metric or "target" in metric:
        _check_recorded(metric.get("name", "loss"), runs.kinds)
    return Sweep(
        name,
        runs,
        points.varied,
        metric,
        project,
        points.size - len(runs),
        points.left_out,
        content.get("method") == "random",
    )


def _word(key: str, given: Any, default: str) -> str:
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, str | int | float) or not str(given).strip():
        raise InputError(f"sweep.{key}: must be a name, got {quoted(given)}")
    return str(given)


def metric_of(given: Any) -> dict[str, Any]:
    """Its name, goal and target, checked as far as no run is needed for it."""
    metric = {} if given is None else given
    _known("sweep.metric", metric, METRIC_KEYS)
    if "name" in metric and not isinstance(metric["name"], str):
        raise InputError(f"sweep.metric.name: must be the name of a metric, got {quoted(metric['name'])}")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise InputError(f"sweep.metric.goal: must be minimize or maximize, got {quoted(metric['goal'])}")
    if "target" in metric:
        metric = {**metric, "target": _number("sweep.metric.target", metric["target"])}
    if not isinstance(metric.get("stays", True), bool):
        raise InputError(f"sweep.metric.stays: must be true or false, got {quoted(metric['stays'])}")
    return dict(metric)


def _check_recorded(name: str, runs: Sequence[Run]) -> None:
    """Refuse a metric that none of the runs records, as far as their fields tell."""
    known = metrics.known()
    foreign = any(code.is_outside(PROBLEMS[str(run.problem)].make) for run in runs)
    if name not in known and not foreign:  # a problem from elsewhere may measure what it likes
        raise InputError(f"sweep.metric.name: no run has a metric {quoted(name)}{did_you_mean(name, known)}")
    if not any(_may_record(run, name) for run in runs):
        raise InputError(
            f"sweep.metric.name: no run of this sweep has {name}; their problems, data and `metrics` leave it out"
        )


def _may_record(run: Run, name: str) -> bool:
    if run.metrics is not None or name in metrics.METRICS:
        return name in (run.metrics or ())
    needs = {"accuracy": ("classes", "text"), "rmse": ("ratings",)}.get(name)
    return needs is None or (run.data is not None and SETS[run.data].traits["kind"] in needs)


def _parameters(given: Any, changes: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Each parameter's mapping, its keys known and not at odds."""
    if not isinstance(given, Mapping) or not given:
        raise InputError("sweep.parameters: must map each parameter to value, values or a distribution")
    parameters = {**given, **{name: choice(value) for name, value in changes.items()}}
    parameters.pop("imports", None)  # it belongs to no run, and changes no id
    for name, parameter in parameters.items():
        if not isinstance(name, str):
            raise InputError(f"sweep.parameters: a name must be text, got {quoted(name)}")
        what = f"sweep.parameters.{shown(name)}"
        if not isinstance(parameter, Mapping):
            raise InputError(f"{what}: must be a mapping such as `value: {quoted(parameter)}`, got {quoted(parameter)}")
        _known(what, parameter, PARAMETER_KEYS)
        if "value" in parameter and "values" in parameter:
            raise InputError(f"{what}: has value and values; leave one out")
    return parameters


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
        raise InputError(f"{what}: must be a mapping with some of {', '.join(known)}, got {quoted(given)}")
    for name in given:
        if name not in known:
            raise InputError(f"{what}: unknown key {quoted(name)}{did_you_mean(str(name), known)}")


def _points(content: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]) -> Points:
    method, cap = content.get("method", "grid"), content.get("run_cap")
    if cap is not None:
        cap = coerce("sweep.run_cap", cap, int)
        if not 1 <= cap <= MOST:
            raise InputError(f"sweep.run_cap: must lie in 1..{MOST}, got {quoted(cap)}")
    if method == "grid":
        return _grid(parameters, cap)
    if method == "random":
        return _random(parameters, cap)
    raise InputError(f"sweep.method: must be grid or random, got {quoted(method)} (bayes needs the W&B agent)")


def _grid(parameters: Mapping[str, Mapping[str, Any]], cap: int | None) -> Points:
    """The product of all values in the file's order; of it the first `run_cap`, as a W&B agent would stop."""
    choices = {name: _choices(f"sweep.parameters.{shown(name)}", p) for name, p in parameters.items()}
    size = math.prod(map(len, choices.values()))
    count = size if cap is None else min(size, cap)
    if count > MOST:
        sizes = " x ".join(str(len(values)) for values in choices.values() if len(values) > 1)
        raise InputError(
            f"sweep: a grid of {size} runs ({sizes}); at most {MOST} are allowed, so take fewer values, or set run_cap"
        )
    return product(choices, count)


def _choices(what: str, parameter: Mapping[str, Any]) -> list[Any]:
    """The values of one parameter of a grid."""
    kind = "constant" if "value" in parameter else "categorical"
    if "value" not in parameter and "values" not in parameter:
        raise InputError(f"{what}: a grid needs value or values; distributions need method: random")
    if parameter.get("distribution", kind) != kind:
        raise InputError(f"{what}.distribution: a grid takes all values, got {quoted(parameter['distribution'])}")
    for name in parameter:
        if name not in ("value", "values", "distribution"):
            raise InputError(f"{what}.{name}: a grid does not read it; leave it out, or use method: random")
    return [parameter["value"]] if "value" in parameter else _values(what, parameter)


def _values(what: str, parameter: Mapping[str, Any]) -> list[Any]:
    values = parameter.get("values")
    if not isinstance(values, list) or not values:
        raise InputError(f"{what}.values: must be a list of at least one value, got {quoted(values)}")
    return values


Draw = Callable[[np.random.Generator], Any]


def _random(parameters: Mapping[str, Mapping[str, Any]], cap: int | None) -> Points:
    if cap is None:
        raise InputError("sweep.run_cap: a random sweep needs the number of runs, got None")
    draws = {name: _draw(f"sweep.parameters.{shown(name)}", parameter) for name, parameter in parameters.items()}
    rng = np.random.default_rng(0)  # the same file means the same runs
    varying = {name: draw for name, draw in draws.items() if "value" not in parameters[name]}
    drawn = [draw(rng) for _ in range(cap) for draw in varying.values()]
    columns = {name: constant(parameters[name].get("value"), cap) for name in draws}
    columns |= {name: listed(drawn[number :: len(varying)]) for number, name in enumerate(varying)}
    varied = tuple(name for name, column in columns.items() if len(set(map(str, column.values))) > 1)
    return Points(columns, cap, varied)


def _draw(what: str, p: Mapping[str, Any]) -> Draw:
    """How one parameter of a random sweep is drawn; what it does not read is refused."""
    kind = p.get("distribution", _default_kind(p))
    if not isinstance(kind, str):
        raise InputError(f"{what}.distribution: must be a name, got {quoted(kind)}")
    if kind == "constant":
        _reads(what, kind, p, ("value",))
        if "value" not in p:
            raise InputError(f"{what}.value: a constant needs its value")
        return lambda rng: p["value"]
    if kind in ("categorical", "categorical_w_probabilities"):
        _reads(what, kind, p, ("values", "probabilities"))
        return _categorical(what, p)
    base = kind.removeprefix("q_")
    if base not in SHAPES:
        raise InputError(f"{what}.distribution: unknown name {quoted(kind)}{did_you_mean(kind, SHAPES)}")
    names, make = SHAPES[base]
    rule = f"{kind} needs a number"
    _reads(what, kind, p, (*names, *["q"] * (base != kind)))
    draw = make(what, *(_number(f"{what}.{name}", p.get(name, default), rule) for name, default in names.items()))
    q = _number(f"{what}.q", p.get("q", 1.0), rule) if base != kind else None
    return _finite(what, draw if q is None else _rounded(what, draw, q))


def _default_kind(p: Mapping[str, Any]) -> str:
    if "value" in p:
        return "constant"
    if "values" in p:
        return "categorical"
    return "int_uniform" if all(isinstance(p.get(name), int) for name in RANGE) else "uniform"


def _reads(what: str, kind: str, given: Mapping[str, object], names: Sequence[str]) -> None:
    for name in given:
        if name not in (*names, "distribution"):
            raise InputError(f"{what}.{name}: {kind} does not read it; leave it out")


def _number(what: str, value: Any, rule: str = "must be a number") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what}: {rule}, got {quoted(value)}")
    found: float = coerce(what, value, float)
    if not math.isfinite(found):
        raise InputError(f"{what}: must be finite, got {found}")
    return found


def _categorical(what: str, p: Mapping[str, Any]) -> Draw:
    values, weights = _values(what, p), p.get("probabilities")
    if weights is not None and not _are_probabilities(weights, len(values)):
        raise InputError(f"{what}.probabilities: must be one for each value and sum to 1, got {quoted(weights)}")
    if weights is None:
        return lambda rng: values[rng.integers(len(values))]
    return lambda rng: values[rng.choice(len(values), p=weights)]


def _are_probabilities(weights: Any, count: int) -> bool:
    return (
        isinstance(weights, list)
        and len(weights) == count
        and all(isinstance(w, int | float) and not isinstance(w, bool) and 0 <= w <= 1 for w in weights)
        and abs(sum(weights) - 1) <= 1e-9
    )


def _rounded(what: str, draw: Draw, q: float) -> Draw:
    if not q > 0:
        raise InputError(f"{what}.q: must be positive, got {q:g}")
    return lambda rng: (int if q.is_integer() else float)(round(draw(rng) / q) * q)


def _finite(what: str, draw: Draw) -> Draw:
    """The same draw, which must stay within the numbers."""

    def checked(rng: np.random.Generator) -> Any:
        try:
            value = draw(rng)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise InputError(f"{what}: draws numbers that are too large; narrow its range")
        return value

    return checked


def _uniform(what: str, low: float, high: float) -> Draw:
    _ordered(what, low, high)
    if not math.isfinite(high - low):
        raise InputError(f"{what}: max - min must be finite, got min={low:g}, max={high:g}")
    return lambda rng: rng.uniform(low, high)


def _int_uniform(what: str, low: float, high: float) -> Draw:
    _ordered(what, low, high)
    for name, value in zip(RANGE, (low, high), strict=True):
        if not value.is_integer() or abs(value) > WIDEST:
            raise InputError(f"{what}.{name}: int_uniform needs a whole number, got {value:g}")
    return lambda rng: int(rng.integers(int(low), int(high) + 1))


def _log_uniform(what: str, low: float, high: float) -> Draw:
    draw = _uniform(what, low, high)
    return lambda rng: math.exp(draw(rng))


def _log_uniform_values(what: str, low: float, high: float) -> Draw:
    if low <= 0:
        raise InputError(f"{what}: needs 0 < min <= max, got min={low:g}, max={high:g}")
    _ordered(what, low, high)
    return _log_uniform(what, math.log(low), math.log(high))


def _ordered(what: str, low: float, high: float) -> None:
    if not low <= high:
        raise InputError(f"{what}: needs min <= max, got min={low:g}, max={high:g}")


def _normal(what: str, mu: float, sigma: float) -> Draw:
    if sigma < 0:
        raise InputError(f"{what}.sigma: must not be negative, got {sigma:g}")
    return lambda rng: float(rng.normal(mu, sigma))


def _log_normal(what: str, mu: float, sigma: float) -> Draw:
    draw = _normal(what, mu, sigma)
    return lambda rng: math.exp(draw(rng))


BETWEEN: Mapping[str, float | None] = dict.fromkeys(RANGE)  # what a law reads, with defaults; None: it must be given
AROUND: Mapping[str, float | None] = {"mu": 0.0, "sigma": 1.0}
SHAPES: Mapping[str, tuple[Mapping[str, float | None], Callable[[str, float, float], Draw]]] = {
    "uniform": (BETWEEN, _uniform),
    "int_uniform": (BETWEEN, _int_uniform),
    "log_uniform_values": (BETWEEN, _log_uniform_values),
    "log_uniform": (BETWEEN, _log_uniform),
    "normal": (AROUND, _normal),
    "log_normal": (AROUND, _log_normal),
}
