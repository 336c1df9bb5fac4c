// The section of clocks: one of them is drawn.

const clocksSection = (page) => {
  const own = page.content.clocks;
  if (!own) return () => {};
  let chosen = 0;
  one("clocks-controls").append(choice("clock", own.clocks.map((clock, i) => [String(i), clock.name]), "0", (value) => {
    chosen = Number(value);
    draw();
  }));
  const draw = () => {
    const clock = own.clocks[chosen];
    const colour = (kind) => own.colours[kind];
    page.model("clocks-bars").data = {
      left: clock.begin,
      right: clock.end,
      top: clock.worker.map((row) => row - 0.4),
      bottom: clock.worker.map((row) => row + 0.4),
      color: clock.kind.map(colour),
      text: clock.kind.map((kind, i) => `worker ${clock.worker[i]} ${kind}\n${short(clock.begin[i])} to ${short(clock.end[i])} s`),
    };
    page.model("clocks-updates").data = { x: clock.updates, y: clock.updates.map(() => -0.75) };
    const line = page.model("clocks-timeline");
    const end = clock.until || 1;
    line.x_range.setv({ start: 0, end, reset_start: 0, reset_end: end });
    line.y_range.setv({ start: clock.workers - 0.4, end: -1.1 });
    line.height = Math.min(640, 110 + 22 * clock.workers);
    stale(clock);
    const rows = [...clock.facts, ["drawn", `${short(end)} of ${short(clock.whole)} s; ticks above are updates; ${Object.keys(own.colours).filter((kind) => clock.kind.includes(kind)).join(", ")} by colour`]];
    one("clocks-facts").replaceChildren(...rows.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, ...keyed(name, text))]));
  };
  // The line that explains colours has them beside their words.
  const keyed = (name, text) => (name !== "drawn" ? [text] : text.split(/\b(computing|sending|waiting|wasted)\b/).map((part) => {
    if (!(part in own.colours)) return part;
    const word = element("b", {}, part);
    Object.assign(word.style, { borderBottom: `4px solid ${own.colours[part]}` });
    return word;
  }));
  const stale = (clock) => {
    const { edges, applied, dropped, expected } = clock;
    const width = edges[1] - edges[0];
    const name = (i) => (width === 1 ? `${edges[i]}` : `${edges[i]} to ${edges[i + 1] - 1}`);
    const data = { left: [], right: [], top: [], bottom: [], color: [], text: [] };
    const put = (i, bottom, count, color, what) => {
      if (!count) return;
      data.left.push(edges[i] - 0.45 * width);
      data.right.push(edges[i] + 0.45 * width);
      data.bottom.push(bottom);
      data.top.push(bottom + count);
      data.color.push(color);
      data.text.push(`staleness ${name(i)}: ${count} ${what}`);
    };
    applied.forEach((count, i) => put(i, 0, count, own.colours.computing, "applied"));
    dropped.forEach((count, i) => put(i, applied[i], count, own.colours.wasted, "dropped"));
    page.model("clocks-counts").data = data;
    page.model("clocks-theory").data = { x: expected.map((_, i) => edges[i]), y: expected, text: expected.map(short) };
    const plane = page.model("clocks-staleness");
    plane.x_range.setv({ start: -0.7 * width, end: Math.max(8, edges.at(-1)) });
    plane.y_range.setv({ start: 0, end: 1.08 * Math.max(1, ...applied.map((count, i) => count + dropped[i]), ...expected) });
  };
  return draw;
};
