// The section of curves.

const UP = ["accuracy"]; // more is better
const MOST_LINES = 400;
const DOTS = 8; // markers on a curve
const MARKS = { diverged: "x", stalled: "square_pin" };
const MARKERS = ["circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "square_x", "hex", "star", "asterisk"];
const LINES = [[], [6, 3], [2, 3], [7, 3, 2, 3], [12, 3], [4, 2, 1, 2]];

const curvesSection = (page) => {
  const { records } = page;
  const own = page.content.curves;
  const metrics = records.names.filter((name) => !(name in own.axes));
  const xs = records.names.filter((name) => name in own.axes);
  const grouping = page.varied.filter((name) => name !== "seed");
  const first = ["sweep", "algorithm", ...grouping].find((name) => grouping.includes(name) && name !== "learning_rate") ?? grouping[0] ?? "";
  const metric = metrics.includes(page.metric) ? page.metric : metrics.find((name) => name === "loss") ?? metrics[0];
  if (!metric || !xs.length) {
    one("curves-said").textContent = "These runs recorded no metric.";
    return () => {};
  }
  // Whether what is not positive is but rounding.
  const positive = (name) => {
    const ends = page.rows.filter(records.has).map((run) => records.curve(name, run).filter(Number.isFinite)).filter((ys) => ys.length);
    const largest = Math.max(...ends.map((ys) => ys[0]));
    return ends.every((ys) => ys.every((y) => y > -1e-6 * largest));
  };
  const state = { x: xs.includes("step") ? "step" : xs[0], y: metric, xscale: "linear", yscale: positive(metric) && !UP.includes(metric) ? "log" : "linear", by: first, second: "", mode: "median", bands: true };
  if (page.cost.startsWith("seconds") && xs.includes("time")) state.x = "time";
  if (page.cost.startsWith("gradients") && xs.includes("gradients")) state.x = "gradients";
  const hidden = new Set();
  const set = (name) => (value) => {
    state[name] = value;
    draw();
  };
  const begin = (name) => (name === "learning_rate" ? "best" : [first, "seed"].includes(name) ? "all" : "0");
  const filters = filtersOf(page, begin, () => draw());
  const groups = [["", "nothing"], ...grouping.map((name) => [name, name])];
  one("curves-controls").append(
    choice("x axis", xs.map((name) => [name, own.axes[name]]), state.x, set("x")),
    choice("x scale", [["linear", "linear"], ["log", "logarithmic"]], state.xscale, set("xscale")),
    choice("y axis", metrics.map((name) => [name, name]), state.y, set("y")),
    choice("y scale", [["linear", "linear"], ["log", "logarithmic"]], state.yscale, set("yscale")),
    choice("colour by", groups, state.by, set("by")),
    choice("dashes by", groups, state.second, set("second")),
    choice("show", [["median", "median of the runs"], ["each", "each run"]], state.mode, set("mode")),
    tick("quartiles", state.bands, set("bands")),
    ...filters.controls,
  );

  const level = (name, run) => (name ? page.levels(name).of[run] : 0);
  const label = (name, i) => (name ? (name === "algorithm" ? page.levels(name).labels[i] : `${name} ${page.levels(name).labels[i]}`) : "");

  const look = (i, j) => {
    const known = state.by === "algorithm" ? own.looks[page.levels("algorithm").labels[i]] : undefined;
    const palette = own.palette;
    const color = known ? known.color : palette[i % palette.length];
    const turn = Math.floor(i / palette.length);
    const dash = state.second ? LINES[j % LINES.length] : known ? known.dash : LINES[turn % LINES.length];
    const marker = state.second ? MARKERS[j % MARKERS.length] : known ? known.marker : MARKERS[i % MARKERS.length];
    return { color: color === "#000000" && page.dark() ? "#f2f2f2" : color, dash, marker };
  };

  // [{label, rows, look}], a curve each, in the order of levels.
  const grouped = (rows) => {
    const found = new Map();
    rows.forEach((run) => {
      const [i, j] = [level(state.by, run), level(state.second === state.by ? "" : state.second, run)];
      const key = i * 1e6 + j;
      if (!found.has(key)) found.set(key, { key, i, j, rows: [] });
      found.get(key).rows.push(run);
    });
    return [...found.values()].sort((a, b) => a.key - b.key).map(({ i, j, rows: those }) => {
      const names = [label(state.by, i), state.second && state.second !== state.by ? label(state.second, j) : ""];
      return { label: names.filter(Boolean).join(", ") || "all runs", rows: those, look: look(i, j) };
    });
  };

  const log = (axis) => state[`${axis}scale`] === "log";
  const allowed = (axis, value) => Number.isFinite(value) && (!log(axis) || value > 0);
  const curve = (run) => ({ xs: records.curve(state.x, run), ys: records.curve(state.y, run), lost: page.runs.diverged[run] === true });
  const highest = () => UP.includes(state.y) || (page.highest && state.y === page.metric);

  const line = (xsOf, ysOf) => {
    const keep = xsOf.map((x, i) => allowed("x", x) && allowed("y", ysOf[i]));
    return { xs: xsOf.map((x, i) => (keep[i] ? x : NaN)), ys: ysOf.map((y, i) => (keep[i] ? y : NaN)) };
  };

  const theory = (group, stats) => own.theory.filter((said) => said.metric === state.y && said.runs.some((run) => group.rows.includes(run))).flatMap((said) => {
    const there = stats.xs.filter((x, i) => allowed("x", x) && allowed("y", stats.median[i]));
    if (!there.length) return [];
    if (!said.steps.length) return said.values[0] > 0 ? [{ label: said.label, xs: [there[0], there.at(-1)], ys: [said.values[0], said.values[0]] }] : [];
    if (state.x !== "step") return [];
    const least = Math.min(...stats.median.filter((y) => allowed("y", y)));
    const keep = said.steps.map((x, i) => allowed("x", x) && said.values[i] >= 0.5 * least); // as far down as rounding lets the curve go
    return [{ label: said.label, xs: said.steps.filter((_, i) => keep[i]), ys: said.values.filter((_, i) => keep[i]) }];
  });

  // The polygons of a band: one for each stretch in which both quartiles can be drawn.
  const band = (stats, color, into) => {
    let [low, high, x] = [[], [], []];
    const close = () => {
      if (x.length > 1) {
        into.xs.push([...x, ...[...x].reverse()]);
        into.ys.push([...low, ...high.reverse()]);
        into.color.push(color);
      }
      [low, high, x] = [[], [], []];
    };
    stats.xs.forEach((at, i) => {
      if (allowed("x", at) && allowed("y", stats.low[i]) && allowed("y", stats.high[i])) {
        x.push(at);
        low.push(stats.low[i]);
        high.push(stats.high[i]);
      } else close();
    });
    close();
  };

  const limits = (axis, values) => {
    const finite = values.filter((value) => allowed(axis, value));
    if (!finite.length) return log(axis) ? [0.1, 1] : [0, 1];
    let low = Infinity;
    let high = -Infinity;
    finite.forEach((value) => {
      low = Math.min(low, value);
      high = Math.max(high, value);
    });
    if (log(axis)) {
      const room = high > low ? (high / low) ** 0.03 : 1.5;
      return [low / room, high * room];
    }
    const room = 0.03 * (high - low) || Math.abs(high) * 0.1 || 1;
    return [low - room, high + room];
  };

  // -- what is drawn: columns of Bokeh's sources, and the numbers that the axes must hold --

  const nothing = () => ({
    bands: { xs: [], ys: [], color: [] },
    lines: { xs: [], ys: [], color: [], dash: [], text: [] },
    dots: { x: [], y: [], color: [], marker: [] },
    marks: { x: [], y: [], color: [], marker: [], text: [] },
    xs: [],
    ys: [],
    begins: [],
    left: 0, // runs that are not drawn
  });

  const add = (columns, row) => Object.entries(row).forEach(([name, value]) => columns[name].push(value));

  const addLine = (into, drawn, { color, dash }, text) => {
    add(into.lines, { xs: drawn.xs, ys: drawn.ys, color, dash, text });
    drawn.xs.forEach((x) => into.xs.push(x));
    drawn.ys.forEach((y) => into.ys.push(y));
  };

  const addMedian = (into, group, stats) => {
    const drawn = line(stats.xs, stats.median);
    addLine(into, drawn, group.look, group.text);
    if (state.bands && group.rows.length > 1) {
      band(stats, group.look.color, into.bands);
      [stats.low, stats.high].forEach((part) => part.forEach((y) => into.ys.push(y)));
    }
    const there = drawn.xs.flatMap((x, i) => (Number.isFinite(x) ? [i] : []));
    for (let k = 0; k < DOTS && there.length; k += 1) {
      const i = there[Math.round((k * (there.length - 1)) / (DOTS - 1))];
      add(into.dots, { x: drawn.xs[i], y: drawn.ys[i], color: group.look.color, marker: group.look.marker });
    }
  };

  const addEach = (into, group, curves) => group.rows.forEach((run, i) => {
    if (into.lines.xs.length >= MOST_LINES) into.left += 1;
    else addLine(into, line(Array.from(curves[i].xs), Array.from(curves[i].ys)), group.look, `${group.label}\n${configuration(page, [run])}`);
  });

  // A mark where a run ended before its time, or where it left the picture.
  const addMark = (into, run, color, top) => {
    const kind = page.runs.diverged[run] ? "diverged" : page.runs.stalled_step[run] !== null ? "stalled" : null;
    if (!kind) return;
    const { xs: at, ys } = curve(run);
    const last = ys.findLastIndex((y, i) => allowed("y", y) && allowed("x", at[i]) && y <= top);
    if (last < 0) return;
    const text = `${kind} at step ${shown(page.runs[`${kind}_step`][run])}\n${configuration(page, [run])}`;
    add(into.marks, { x: at[last], y: ys[last], color, marker: MARKS[kind], text });
  };

  // The legend's entries of the theory that is about a group.
  const addTheory = (into, group, stats) => theory(group, stats).map((said) => {
    const look = { color: group.look.color, dash: [2, 4], marker: null };
    if (!hidden.has(said.label)) addLine(into, said, look, said.label);
    return { label: said.label, text: said.label, look };
  });

  const addGroup = (into, group) => {
    const curves = group.rows.map(curve);
    const stats = quartiles(curves, highest() ? -Infinity : Infinity, log("x"));
    if (state.mode === "median") addMedian(into, group, stats);
    else addEach(into, group, curves);
    into.begins.push(stats.median.find((y) => allowed("y", y)) ?? NaN);
    return addTheory(into, group, stats);
  };

  const draw = () => {
    const open = (name) => (name !== state.by && name !== state.second) || name === "learning_rate";
    filters.open(open);
    const rows = filters.rows(open).filter(records.has);
    const all = grouped(rows).map((group) => ({ ...group, text: `${group.label}\n${configuration(page, group.rows)}` }));
    const seen = all.filter((group) => !hidden.has(group.label));
    const into = nothing();
    const entries = new Map(all.map((group) => [group.label, group]));
    seen.forEach((group) => addGroup(into, group).forEach((entry) => entries.set(entry.label, entry)));
    const top = highest() ? Infinity : ceiling(into.begins);
    seen.forEach((group) => group.rows.forEach((run) => addMark(into, run, group.look.color, top)));
    ["bands", "lines", "dots", "marks"].forEach((name) => {
      page.model(`curves-${name}`).data = into[name];
    });
    show(limits("x", into.xs), limits("y", into.ys.filter((y) => y <= top)));
    legend([...entries.values()]);
    said(all, rows, into.left, open);
  };

  // What blew up is cut off, far above where all began.
  const ceiling = (begins) => {
    const first = Math.max(...begins.filter(Number.isFinite));
    return first > 0 ? 100 * first : Infinity;
  };

  const show = (xlimits, ylimits) => {
    ["linear", "log"].forEach((a) => ["linear", "log"].forEach((b) => {
      const plane = page.model(`curves-${a}-${b}`);
      const seen = a === state.xscale && b === state.yscale;
      if (seen) {
        [[plane.x_range, xlimits], [plane.y_range, ylimits]].forEach(([range, [start, end]]) => range.setv({ start, end, reset_start: start, reset_end: end }));
        plane.below[0].axis_label = plain(own.axes[state.x]);
        plane.left[0].axis_label = plain(state.y);
        const target = page.model(`target-${a}-${b}`);
        target.setv({ location: page.target ?? 0, visible: page.target !== null && state.y === page.metric });
      }
      plane.visible = seen;
    }));
  };

  const legend = (entries) => {
    const focused = document.activeElement?.dataset?.curve;
    one("curves-legend").replaceChildren(...entries.map((entry) => {
      const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(entry.label)), "data-curve": entry.label }, swatch(entry.look), entry.label);
      button.addEventListener("click", () => {
        if (!hidden.delete(entry.label)) hidden.add(entry.label);
        draw();
      });
      const tell = () => {
        one("curves-detail").textContent = entry.text;
      };
      button.addEventListener("focus", tell);
      button.addEventListener("pointerenter", tell);
      return button;
    }));
    if (focused !== undefined) [...one("curves-legend").children].find((button) => button.dataset.curve === focused)?.focus();
  };

  const said = (all, rows, left, open) => {
    const counts = [...new Set(all.map((group) => group.rows.length))];
    const each = counts.length ? `${Math.min(...counts)}${counts.length > 1 ? ` to ${Math.max(...counts)}` : ""}` : "0";
    const lost = rows.filter((run) => page.runs.diverged[run]).length;
    const stalled = rows.filter((run) => page.runs.stalled_step[run] !== null).length;
    const words = [
      state.mode === "each" ? `${rows.length - left} runs` : each === "1" ? "One run a curve" : `Median${state.bands ? " and quartiles" : ""} of ${each} runs a curve`,
      ...filters.said(open),
      lost ? `${lost} diverged (crosses)` : "",
      stalled ? `${stalled} stalled (squares)` : "",
      left ? `${left} more are not drawn` : "",
      records.thinned ? `at most 200 of ${records.thinned} records of a run are kept, extremes included` : "",
      page.target !== null && state.y === page.metric ? `dotted: the target, ${short(page.target)}` : "",
      page.rows.some((run) => !records.has(run)) ? "runs that are not tuned have no curve here: there are too many" : "",
    ];
    one("curves-said").textContent = rows.length ? `${words.filter(Boolean).join("; ")}.` : "No run matches these choices.";
  };

  page.onTheme(draw);
  return draw;
};
