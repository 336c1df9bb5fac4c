// What the sections share: controls, levels of a parameter, words. All text that users gave becomes text, never HTML.

const one = (id) => document.getElementById(id);

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...children);
  return made;
};

let controls = 0;

// A choice with its label; `options`: [value, what is shown of it].
const choice = (label, options, value, change) => {
  controls += 1;
  const select = element("select", { id: `choice-${controls}`, "data-control": label });
  options.forEach(([key, text]) => select.append(element("option", { value: key }, text)));
  select.value = value;
  select.addEventListener("change", () => change(select.value));
  return element("label", { for: select.id }, label, select);
};

const tick = (label, value, change) => {
  controls += 1;
  const box = element("input", { id: `choice-${controls}`, type: "checkbox", "data-control": label });
  box.checked = value;
  box.addEventListener("change", () => change(box.checked));
  return element("label", { for: box.id, class: "row" }, box, label);
};

// A number as a reader wants it.
const short = (x) => {
  if (typeof x !== "number") return String(x);
  if (Number.isInteger(x) && Math.abs(x) < 1e7) return String(x);
  return Number.isFinite(x) ? String(Number(x.toPrecision(4))) : x > 0 ? "infinite" : Number.isNaN(x) ? "-" : "-infinite";
};

const shown = (x) => (x === null ? "-" : typeof x === "number" ? short(x) : String(x));

// Bokeh takes some text for TeX, and would ask a server for a program that sets it: its marks are taken apart.
const plain = (text) => text.replace(/\$(?=\$)/g, "$\u200b").replace(/\\(?=[[(\])])/g, "\\\u200b");

const MANY = 24;
const RANGES = 8;

// The levels of a parameter: {labels, of: [runs] the level of each}. Of many numbers ranges are made.
const levelsOf = (values) => {
  const distinct = [...new Set(values)];
  const numbers = distinct.filter((x) => typeof x === "number").sort((a, b) => a - b);
  const words = distinct.filter((x) => typeof x !== "number" && x !== null);
  if (numbers.length > MANY) return ranged(values, numbers);
  const order = [...numbers, ...words, ...(distinct.includes(null) ? [null] : [])];
  const place = new Map(order.map((x, i) => [x, i]));
  return { labels: apart(order.map(shown)), of: values.map((x) => place.get(x)), numeric: !words.length };
};

const ranged = (values, numbers) => {
  const edges = Array.from({ length: RANGES + 1 }, (_, i) => quantile(numbers, i / RANGES));
  const labels = edges.slice(1).map((edge, i) => `${short(edges[i])} to ${short(edge)}`);
  const level = (x) => (typeof x !== "number" ? RANGES : Math.min(RANGES - 1, Math.max(0, edges.findLastIndex((edge) => x >= edge))));
  const missing = values.some((x) => typeof x !== "number");
  return { labels: apart(missing ? [...labels, "other"] : labels), of: values.map(level), numeric: true };
};

// Labels of which no two are alike.
const apart = (labels) => labels.map((label, i) => (labels.indexOf(label) === i ? label : `${label} (${i})`));

// Choices of some runs by levels of parameters; `open(name)`: whether that parameter is chosen from. `begin`: name -> all, best, or
// the number of a level, at first. Runs that do not read a parameter are there whichever of its values is chosen.
const filtersOf = (page, begin, change) => {
  const chosen = new Map();
  const made = new Map();
  page.varied.forEach((name) => {
    const { labels, of } = page.levels(name);
    const missing = new Set(page.rows.filter((run) => page.runs[name][run] === null).map((run) => of[run]));
    const values = labels.map((label, i) => [String(i), label]).filter((_, i) => !missing.has(i));
    const options = [...(name === "learning_rate" ? [["best", "best of each cell"]] : []), ["all", "all"], ...values];
    chosen.set(name, begin(name));
    made.set(name, choice(name, options, chosen.get(name), (value) => {
      chosen.set(name, value);
      change();
    }));
  });
  const keeps = (name, run) => {
    const value = chosen.get(name);
    if (value === "all") return true;
    if (value === "best") return page.runs.best[run];
    return page.runs[name][run] === null || page.levels(name).of[run] === Number(value);
  };
  return {
    controls: [...made.values()],
    open: (isOpen) => page.varied.forEach((name) => { made.get(name).hidden = !isOpen(name); made.get(name).style.display = isOpen(name) ? "" : "none"; }),
    rows: (isOpen) => page.rows.filter((run) => page.varied.every((name) => !isOpen(name) || keeps(name, run))),
    said: (isOpen) => page.varied.filter((name) => isOpen(name) && chosen.get(name) !== "all").map((name) => {
      const value = chosen.get(name);
      return value === "best" ? "at the best rate of each cell" : `${name} ${page.levels(name).labels[Number(value)]}`;
    }),
  };
};

const SKIPPED = ["id", "best", "to_target", "spacing", "final", "diverged", "diverged_step", "stalled_step"];

// The full configuration of some runs: what is varied first, line by line, and then all else.
const configuration = (page, rows) => {
  const value = (name) => {
    const found = [...new Set(rows.map((run) => shown(page.runs[name][run])))];
    return found.length > 4 ? `${found.slice(0, 3).join(", ")} and ${found.length - 3} more` : found.join(", ");
  };
  const names = Object.keys(page.runs).filter((name) => !SKIPPED.includes(name) && !name.startsWith("final."));
  const varied = page.varied.map((name) => `${name}: ${value(name)}`);
  const rest = names.filter((name) => !page.varied.includes(name)).map((name) => [name, value(name)]).filter(([, text]) => text !== "-");
  const who = rows.length === 1 ? `run ${page.runs.id[rows[0]]}` : `${rows.length} runs`;
  return [who, ...varied, rest.map(([name, text]) => `${name} ${text}`).join(", ")].join("\n");
};
