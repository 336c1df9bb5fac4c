// The section of curves.

const UP = ["accuracy"]; // more is better
const MOST_LINES = 400;
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
  const positive = (name) => page.rows.every((run) => !records.has(run) || records.curve(name, run).every((x) => !(x <= 0)));
  const state = { x: xs.includes("step") ? "step" : xs[0], y: metric, xscale: "linear", yscale: positive(metric) ? "log" : "linear", by: first, second: "", mode: "median", bands: true };
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
    if (!there.length || !(said.value > 0)) return [];
    if (said.kind === "floor") return [{ label: said.label, xs: [there[0], there.at(-1)], ys: [said.value, said.value] }];
    if (state.x !== "step") return [];
    const from = there[Math.floor(there.length / 2)];
    const height = stats.median[stats.xs.indexOf(from)];
    const points = Array.from({ length: 50 }, (_, i) => from + ((there.at(-1) - from) * i) / 49);
    return [{ label: said.label, xs: points, ys: points.map((x) => height * said.value ** (x - from)) }];
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

  const mark = (into, run, color) => {
    const kind = page.runs.diverged[run] ? "x" : page.runs.stalled_step[run] !== null ? "square_pin" : null;
    if (!kind) return;
    const { xs: at, ys } = curve(run);
    const last = ys.findLastIndex((y, i) => allowed("y", y) && allowed("x", at[i]));
    if (last < 0) return;
    into.x.push(at[last]);
    into.y.push(ys[last]);
    into.color.push(color);
    into.marker.push(kind);
    const what = kind === "x" ? `diverged at step ${shown(page.runs.diverged_step[run])}` : `stalled at step ${shown(page.runs.stalled_step[run])}`;
    into.text.push(`${what}\n${configuration(page, [run])}`);
  };

  const source = (name) => page.model(`curves-${name}`);

  const draw = () => {
    const isOpen = (name) => name !== state.by && name !== state.second;
    const open = (name) => isOpen(name) || name === "learning_rate";
    filters.open(open);
    const rows = filters.rows(open).filter(records.has);
    const all = grouped(rows);
    const worst = highest() ? -Infinity : Infinity;
    const bands = { xs: [], ys: [], color: [] };
    const lines = { xs: [], ys: [], color: [], dash: [], text: [] };
    const dots = { x: [], y: [], color: [], marker: [] };
    const marks = { x: [], y: [], color: [], marker: [], text: [] };
    const entries = [];
    const [allX, allY, begins] = [[], [], []];
    const put = (drawn, color, dash, text) => {
      lines.xs.push(drawn.xs);
      lines.ys.push(drawn.ys);
      lines.color.push(color);
      lines.dash.push(dash);
      lines.text.push(text);
      drawn.xs.forEach((x) => allX.push(x));
      drawn.ys.forEach((y) => allY.push(y));
    };
    let left = 0;
    all.forEach((group) => {
      const text = `${group.label}\n${configuration(page, group.rows)}`;
      entries.push({ ...group, text });
      if (hidden.has(group.label)) return;
      const curves = group.rows.map(curve);
      const stats = quartiles(curves, worst, log("x"));
      const drawn = line(stats.xs, stats.median);
      if (state.mode === "median") {
        put(drawn, group.look.color, group.look.dash, text);
        if (state.bands && group.rows.length > 1) {
          band(stats, group.look.color, bands);
          stats.high.forEach((y) => allY.push(y));
          stats.low.forEach((y) => allY.push(y));
        }
        const there = drawn.xs.flatMap((x, i) => (Number.isFinite(x) ? [i] : []));
        for (let k = 0; k < 8 && there.length; k += 1) {
          const i = there[Math.round((k * (there.length - 1)) / 7)];
          dots.x.push(drawn.xs[i]);
          dots.y.push(drawn.ys[i]);
          dots.color.push(group.look.color);
          dots.marker.push(group.look.marker);
        }
      } else {
        group.rows.forEach((run, i) => {
          if (lines.xs.length >= MOST_LINES) {
            left += 1;
            return;
          }
          put(line(Array.from(curves[i].xs), Array.from(curves[i].ys)), group.look.color, group.look.dash, `${group.label}\n${configuration(page, [run])}`);
        });
      }
      begins.push(stats.median.find((y) => allowed("y", y)) ?? NaN);
      group.rows.forEach((run) => mark(marks, run, group.look.color));
      theory(group, stats).forEach((said) => {
        if (!entries.some((entry) => entry.label === said.label)) entries.push({ label: said.label, rows: [], look: { color: group.look.color, dash: [2, 4], marker: null }, text: said.label });
        if (!hidden.has(said.label)) put(said, group.look.color, [2, 4], said.label);
      });
    });
    Object.entries({ bands, lines, dots, marks }).forEach(([name, data]) => {
      source(name).data = data;
    });
    show(limits("x", allX), limits("y", cut(allY, begins)));
    legend(entries);
    said(all, rows, left, isOpen, open);
  };

  // What blew up is cut off far above where all began.
  const cut = (values, begins) => {
    const top = 100 * Math.max(...begins.filter(Number.isFinite));
    return top > 0 && !highest() ? values.filter((y) => y <= top) : values;
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

  const said = (all, rows, left, isOpen, open) => {
    const counts = [...new Set(all.map((group) => group.rows.length))];
    const each = counts.length ? `${Math.min(...counts)}${counts.length > 1 ? ` to ${Math.max(...counts)}` : ""}` : "0";
    const lost = rows.filter((run) => page.runs.diverged[run]).length;
    const stalled = rows.filter((run) => page.runs.stalled_step[run] !== null).length;
    const words = [
      state.mode === "median" ? `Median${state.bands ? " and quartiles" : ""} of ${each} runs a curve` : `${rows.length - left} runs`,
      ...filters.said(open),
      lost ? `${lost} diverged (crosses)` : "",
      stalled ? `${stalled} stalled (squares)` : "",
      left ? `${left} more are not drawn` : "",
      records.thinned ? `of ${records.thinned} records of a run at most 200 are kept, the extremes among them` : "",
      page.target !== null && state.y === page.metric ? `dotted: the target, ${short(page.target)}` : "",
      page.rows.some((run) => !records.has(run)) ? "runs that are not tuned have no curve here, since there are too many" : "",
    ];
    one("curves-said").textContent = rows.length ? `${words.filter(Boolean).join("; ")}.` : "No run is left by these choices.";
  };

  page.onTheme(draw);
  return draw;
};

const SVG = "http://www.w3.org/2000/svg";

// A line as the legend shows it.
const swatch = ({ color, dash, marker }) => {
  const drawing = document.createElementNS(SVG, "svg");
  Object.entries({ width: 34, height: 12, "aria-hidden": "true", "data-marker": marker ?? "" }).forEach(([name, value]) => drawing.setAttribute(name, value));
  const stroke = document.createElementNS(SVG, "line");
  Object.entries({ x1: 0, y1: 6, x2: 34, y2: 6, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash.join(" ") }).forEach(([name, value]) => stroke.setAttribute(name, value));
  drawing.append(stroke);
  const shape = document.createElementNS(SVG, "path");
  if (marker) {
    shape.setAttribute("d", SHAPES[marker] ?? SHAPES.circle);
    shape.setAttribute("fill", color);
    shape.setAttribute("stroke", color);
    shape.setAttribute("transform", "translate(17 6)");
    drawing.append(shape);
  }
  return drawing;
};

const SHAPES = {
  circle: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
  square: "M-4,-4h8v8h-8z",
  triangle: "M0,-5L5,4H-5z",
  inverted_triangle: "M0,5L5,-4H-5z",
  diamond: "M0,-5L4,0L0,5L-4,0z",
  plus: "M-5,-1.5h3.5v-3.5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5z",
  square_x: "M-4,-4h8v8h-8zM-6,-6L6,6M-6,6L6,-6",
  triangle_dot: "M-5,0L4,-5V5z",
  triangle_pin: "M5,0L-4,-5V5z",
  hex: "M-5,0L-2.5,-4.5H2.5L5,0L2.5,4.5H-2.5z",
  hex_dot: "M0,-5L4.5,-2.5V2.5L0,5L-4.5,2.5V-2.5z",
  star: "M0,-6L1.5,-2H6L2.5,1L4,6L0,3L-4,6L-2.5,1L-6,-2H-1.5z",
  asterisk: "M-5,0H5M0,-5V5M-4,-4L4,4M-4,4L4,-4",
};
