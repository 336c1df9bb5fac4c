// The section of the heatmap: the median over seeds, at the best of all else that is varied and not chosen.

const heatSection = (page) => {
  const own = page.content.heat;
  if (!own) return () => {};
  // What all runs have comes first, and the rate, of which the best one is taken, last.
  const rank = (name) => own.axes.indexOf(name) + (page.runs[name].includes(null) ? 1e3 : 0) + (name === "learning_rate" ? 2e3 : 0);
  const [y, x] = [...own.axes].sort((a, b) => rank(a) - rank(b));
  const state = { x, y, measure: page.target === null ? "final" : "to_target" };
  const set = (name) => (value) => {
    state[name] = value;
    draw();
  };
  const filters = filtersOf(page, () => "all", () => draw());
  const axes = own.axes.map((name) => [name, name]);
  const measures = [
    ...(page.target === null ? [] : [["to_target", page.cost]]),
    ["final", `final ${page.metric}`],
    ...(page.varied.includes("learning_rate") ? [["learning_rate", "best rate"]] : []),
    ["diverged", "share of runs that diverged"],
    ...own.finals.filter((name) => name !== `final.${page.metric}`).map((name) => [name, name.replace("final.", "final ")]),
  ];
  one("heat-controls").append(
    choice("columns", axes, state.x, set("x")),
    choice("rows", axes, state.y, set("y")),
    choice("colour", measures, state.measure, set("measure")),
    ...filters.controls,
  );

  const cost = (run) => {
    const found = number(page.runs.to_target?.[run]);
    return Number.isNaN(found) ? Infinity : found;
  };
  const last = (run) => {
    const found = number(page.runs.final[run]);
    return Number.isNaN(found) ? (page.highest ? -Infinity : Infinity) : found;
  };
  const value = (rows) => {
    if (state.measure === "to_target") return median(rows.map(cost));
    if (state.measure === "final") return median(rows.map(last));
    return median(rows.map((run) => number(page.runs[state.measure][run])).filter((x) => !Number.isNaN(x)));
  };

  // Of the runs of a field those at the best setting of all else: least cost, and then the best final value.
  const best = (rows, others) => {
    const settings = new Map();
    rows.forEach((run) => {
      const key = others.map((name) => page.levels(name).of[run]).join("|");
      if (!settings.has(key)) settings.set(key, []);
      settings.get(key).push(run);
    });
    const keyed = [...settings.values()].map((those) => [median(those.map(cost)), (page.highest ? -1 : 1) * median(those.map(last)), those]);
    keyed.sort((a, b) => (a[0] === b[0] ? (a[1] === b[1] ? 0 : a[1] - b[1]) : a[0] - b[0]));
    return keyed[0][2];
  };

  const draw = () => {
    const isOpen = (name) => name !== state.x && name !== state.y && name !== "seed";
    filters.open(isOpen);
    const rows = filters.rows(isOpen);
    const others = page.varied.filter((name) => name !== state.x && name !== state.y && name !== "seed");
    const [xs, ys] = [page.levels(state.x), page.levels(state.y)];
    const fields = new Map();
    rows.forEach((run) => {
      const key = xs.of[run] * 1e4 + ys.of[run];
      if (!fields.has(key)) fields.set(key, []);
      fields.get(key).push(run);
    });
    const found = [...fields.entries()].map(([key, those]) => {
      const at = best(those, others);
      const share = those.filter((run) => page.runs.diverged[run]).length / those.length;
      return { x: Math.floor(key / 1e4), y: key % 1e4, rows: at, value: state.measure === "diverged" ? share : value(at) };
    });
    const finite = found.map((field) => field.value).filter(Number.isFinite);
    const [least, most] = [Math.min(...finite), Math.max(...finite)];
    const ratios = least > 0 && most > 20 * least;
    const place = (x) => (most > least ? (ratios ? Math.log(x / least) / Math.log(most / least) : (x - least) / (most - least)) : 0.5);
    const shade = (x) => Math.round(place(x) * (own.shades.length - 1));
    const none = page.dark() ? "#3a434d" : "#d8dde3";
    const labels = [xs.labels.map(plain), ys.labels.map(plain)];
    const factor = (list, i) => list[i] || " ";
    page.model("heat-cells").data = {
      x: found.map((field) => factor(labels[0], field.x)),
      y: found.map((field) => factor(labels[1], field.y)),
      color: found.map((field) => (Number.isFinite(field.value) ? own.shades[shade(field.value)] : none)),
      ink: found.map((field) => (Number.isFinite(field.value) ? (shade(field.value) > own.shades.length / 2 ? "#000000" : "#ffffff") : page.dark() ? "#ffffff" : "#000000")),
      label: found.map((field) => (found.length > 200 ? "" : Number.isFinite(field.value) ? String(Number(field.value.toPrecision(3))) : state.measure === "to_target" ? "never" : "-")),
      text: found.map((field) => `${measures.find(([key]) => key === state.measure)[1]}: ${Number.isFinite(field.value) ? short(field.value) : "not reached"}\n${configuration(page, field.rows)}`),
    };
    const used = (side, axis) => labels[side].map((label) => label || " ").filter((_, i) => found.some((field) => field[axis] === i));
    const plane = page.model("heat");
    plane.x_range.factors = used(0, "x");
    plane.y_range.factors = used(1, "y").reverse();
    plane.below[0].axis_label = plain(state.x);
    plane.left[0].axis_label = plain(state.y);
    plane.below[0].major_label_orientation = used(0, "x").join("").length > 50 ? 0.8 : "horizontal";
    const lost = page.rows.length - rows.length;
    const best_of = others.length ? `, at the best of ${others.join(", ")}` : "";
    one("heat-said").textContent = found.length
      ? `${measures.find(([key]) => key === state.measure)[1]}, ${state.measure === "diverged" ? "of all runs of a field" : `median over the seeds${best_of}`}${lost ? `; ${lost} runs are left out by these choices` : ""}.`
      : "No run matches these choices.";
    scale(least, most, ratios, none);
  };

  const scale = (least, most, ratios, none) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.background = `linear-gradient(to right, ${own.shades.join(", ")})`;
    const grey = element("span", { "aria-hidden": "true" });
    Object.assign(grey.style, { background: none, width: "12px", height: "12px" });
    one("heat-scale").replaceChildren(...(Number.isFinite(least) ? [short(least), bar, `${short(most)}${ratios ? " (logarithmic)" : ""}`] : []), grey, "not reached, or not finite");
  };

  page.onTheme(draw);
  return draw;
};
