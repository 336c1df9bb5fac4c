// The page begins.

const THEMES = { auto: "as the system", light: "light", dark: "dark" };

const start = async () => {
  const { content, array } = await unpacked(one("content").textContent);
  const figures = JSON.parse(one("figures").textContent);
  await Promise.all(Object.values(figures).map((figure) => Bokeh.embed.embed_item(figure)));
  const models = new Map();
  const planes = [];
  Bokeh.documents.forEach((doc) => doc._all_models.forEach((model) => {
    if (model.name) models.set(model.name, model);
    if (model.type === "Figure") planes.push(model);
  }));
  const levels = new Map();
  const themed = [];
  const system = matchMedia("(prefers-color-scheme: dark)");
  let theme = "auto";
  const page = {
    content,
    ...content,
    rows: content.runs.id.map((_, i) => i),
    records: recordsOf(content.curves.records, array),
    model: (name) => models.get(name),
    levels: (name) => {
      if (!levels.has(name)) levels.set(name, levelsOf(content.runs[name]));
      return levels.get(name);
    },
    dark: () => (theme === "auto" ? system.matches : theme === "dark"),
    onTheme: (draw) => themed.push(draw),
  };
  const draws = [curvesSection, heatSection, topologiesSection, clocksSection].map((section) => section(page));
  takeaways(page);
  const paint = () => {
    document.documentElement.dataset.shade = page.dark() ? "dark" : "light";
    planes.forEach((plane) => painted(plane, page.dark()));
  };
  one("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    one("theme").textContent = `Theme: ${THEMES[theme]}`;
    paint();
    themed.forEach((draw) => draw());
  });
  system.addEventListener("change", () => {
    paint();
    themed.forEach((draw) => draw());
  });
  paint();
  draws.forEach((draw) => draw());
  globalThis.dopt = { models };
};

// A figure in the colours of the page.
const painted = (plane, dark) => {
  const [paper, ink, rule] = dark ? ["#14181d", "#e6e9ec", "#2c343d"] : ["#ffffff", "#1b1f24", "#e3e7eb"];
  plane.setv({ background_fill_color: paper, border_fill_color: paper });
  [...plane.below, ...plane.left].forEach((axis) => axis.setv({
    axis_label_text_color: ink,
    major_label_text_color: ink,
    axis_line_color: ink,
    major_tick_line_color: ink,
    minor_tick_line_color: ink,
    axis_label_text_font_style: "normal",
  }));
  plane.center.filter((part) => part.type === "Grid").forEach((grid) => {
    if (plane.name !== "heat") grid.setv({ grid_line_color: rule });
  });
};

start().then(
  () => requestAnimationFrame(() => requestAnimationFrame(() => { // Bokeh draws in the first of these frames
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  })),
  (error) => {
    one("trouble").hidden = false;
    one("trouble").textContent = `The figures could not be drawn: ${error.message}`;
    throw error;
  },
);
