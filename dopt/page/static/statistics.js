// Medians and quartiles, as dopt/plot/seeds.py has them.

// Linear between neighbours; of a place that is next to infinity, infinity.
const quantile = (sorted, q) => {
  const place = q * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  if (below === above) return below;
  if (!Number.isFinite(above)) return above;
  return Number.isFinite(below) ? below + (place - Math.floor(place)) * (above - below) : below;
};

const median = (values) => (values.length ? quantile(Float64Array.from(values).sort(), 0.5) : NaN);

const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

// The value at x of a curve, linear between its points; NaN outside of it.
const at = (curve, x) => {
  const { xs, ys } = curve;
  if (!xs.length || x < xs[0] || x > xs.at(-1)) return NaN;
  let [low, high] = [0, xs.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  if (x >= xs[high]) return ys[high];
  const share = xs[high] > xs[low] ? (x - xs[low]) / (xs[high] - xs[low]) : 0;
  return ys[low] + share * (ys[high] - ys[low]);
};

// Median and quartiles of curves {xs, ys, lost}; what is not finite, and what comes after a run that was lost, is as bad as can be.
const quartiles = (curves, worst, log) => {
  const aligned = curves.every((curve) => same(curve.xs, curves[0].xs));
  const grid = aligned ? curves[0].xs : common(curves, log);
  const found = { xs: Array.from(grid), low: [], median: [], high: [] };
  grid.forEach((x, i) => {
    const values = curves.map((curve) => {
      const y = aligned ? curve.ys[i] : at(curve, x);
      return Number.isFinite(y) ? y : worst;
    });
    const sorted = Float64Array.from(values).sort();
    found.low.push(quantile(sorted, 0.25));
    found.median.push(quantile(sorted, 0.5));
    found.high.push(quantile(sorted, 0.75));
  });
  return found;
};

// Where curves with records of their own can be compared: as far as all go that were not lost.
const common = (curves, log) => {
  const whole = curves.filter((curve) => !curve.lost && curve.xs.length);
  const those = whole.length ? whole : curves.filter((curve) => curve.xs.length);
  const first = Math.max(...those.map((curve) => (log ? curve.xs.find((x) => x > 0) ?? NaN : curve.xs[0])));
  const last = Math.min(...those.map((curve) => curve.xs.at(-1)));
  const count = 200;
  const share = Array.from({ length: count }, (_, i) => i / (count - 1));
  const grid = share.map((s) => (log ? first * (last / first) ** s : first + (last - first) * s));
  grid[0] = first;
  grid[count - 1] = last;
  return grid;
};
