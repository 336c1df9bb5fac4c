"""The last section: what made the runs, and the table of all of them to take away."""

from __future__ import annotations

from collections.abc import Mapping

from dopt.page.material import Material
from dopt.page.section import Section, paragraph, table
from dopt.report.formats import is_missing
from dopt.sweeps.records import Records
from dopt.sweeps.results import Results
from dopt.sweeps.store import SlabError, Store
from dopt.version import VERSION


def section(material: Material, error: float) -> Section:
    """The section. `error`: the largest of the page's curves, as a share."""
    several = len(material.sweeps) > 1
    rows = [[name, value] for one in material.sweeps for name, value in _facts(one, several)]
    notes = [note for one in material.sweeps for note in (*one.notes, *one.faults)]
    body = (
        '<div class="controls"><button type="button" id="csv">Download the runs as CSV</button></div>'
        + table((), rows, "what made these runs")
        + "".join(paragraph(note, "warning") for note in notes)
        + paragraph(
            f"Curves are stored in 16 bits: each value is within {100 * error:.2g} % of its curve's span (or of the value itself, if the curve spans more than two decades). Tables and the CSV are exact.",
            "said",
        )
        + "<details><summary>What all runs share</summary>"
        + table(("field", "value"), _shared(material), "what all runs share")
        + "</details>"
    )
    return Section("source", "Where it comes from", body)


def _facts(one: Results, several: bool) -> list[tuple[str, str]]:
    made = list(one.records.made(one.runs["id"])) if isinstance(one.records, Records) else []
    seconds = _seconds(one)
    metric = ", ".join(f"{name} {value}" for name, value in one.metric.items()) or "loss"
    packages = dict.fromkeys(f"{name} {version}" for each in made for name, version in each.versions)
    facts = {
        "sweep": one.name,
        "folder": one.folder.name or ".",
        "runs": f"{len(one.runs)}" + f", and {one.missing} that are not finished yet" * bool(one.missing),
        "diverged": str(int(one.runs["diverged"].astype(bool).sum())),
        "stalled": str(int(one.runs["stalled_step"].notna().sum())),
        "metric": metric,
        "seconds": f"{seconds['run']:.4g} of running, {seconds['compile']:.4g} of compiling",
        "device": ", ".join(dict.fromkeys(each.device for each in made)),
        "engine": ", ".join(dict.fromkeys(each.engine for each in made)),
        "versions": ", ".join(packages),
        "ids": f"{one.runs['id'].iloc[0]} to {one.runs['id'].iloc[-1]}; all are in the CSV",
        "page": f"dopt {VERSION}",
    }
    head = f"{one.name}: " if several else ""
    return [(head + name, value) for name, value in facts.items()]


def _seconds(one: Results) -> Mapping[str, float]:
    """What the slabs took together, as far as their manifests say."""
    spent = {"run": 0.0, "compile": 0.0}
    for source in one.records.sources if isinstance(one.records, Records) else ():
        try:
            said = Store(source.folder).manifest(source.slab).get("seconds")
        except SlabError:
            continue
        for name in spent:
            value = said.get(name) if isinstance(said, dict) else None
            spent[name] += value if isinstance(value, int | float) else 0.0
    return spent


def _shared(material: Material) -> list[list[str]]:
    """Fields that have one value in all runs."""
    found = []
    for name in material.runs:
        values = material.runs[name]
        if str(name).startswith("final.") or name in ("id", "to_target", "spacing", "final", "best"):
            continue
        texts = {"" if is_missing(value) else str(value) for value in values}
        if len(texts) == 1 and texts != {""}:
            found.append([str(name), texts.pop()])
    return found
