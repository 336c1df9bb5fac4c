// The section of topologies: one of them is drawn.

const topologiesSection = (page) => {
  const graphs = page.content.topologies?.graphs ?? [];
  if (!graphs.length) return () => {};
  let chosen = 0;
  one("topologies-controls").append(choice("graph", graphs.map((graph, i) => [String(i), graph.name]), "0", (value) => {
    chosen = Number(value);
    draw();
  }));
  const turn = Array.from({ length: 181 }, (_, i) => (2 * Math.PI * i) / 180);
  const draw = () => {
    const graph = graphs[chosen];
    const { x, y } = graph;
    page.model("topologies-links").data = { xs: graph.ways[0], ys: graph.ways[1] };
    page.model("topologies-arrows").data = {
      x: graph.oneWay.map(([u, v]) => x[u] + 0.72 * (x[v] - x[u])),
      y: graph.oneWay.map(([u, v]) => y[u] + 0.72 * (y[v] - y[u])),
      angle: graph.oneWay.map(([u, v]) => Math.atan2(y[v] - y[u], x[v] - x[u]) - Math.PI / 2),
    };
    page.model("topologies-nodes").data = { x, y, text: x.map((_, i) => `worker ${i}`) };
    const modulus = graph.real.map((real, i) => Math.hypot(real, graph.imag[i]));
    page.model("topologies-values").data = {
      x: graph.real,
      y: graph.imag,
      text: graph.real.map((real, i) => `eigenvalue ${short(real)}${graph.imag[i] ? ` + ${short(graph.imag[i])} i` : ""}, modulus ${short(modulus[i])}`),
    };
    page.model("topologies-circle").data = { x: turn.map(Math.cos), y: turn.map(Math.sin) };
    page.model("topologies-spectrum").below[0].axis_label = plain(`real part of the eigenvalues of ${graph.what}`);
  };
  return draw;
};
