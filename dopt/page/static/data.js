// What the page holds, as dopt/page/payload.py and dopt/page/thin.py wrote it.

const unpacked = async (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const content = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const kinds = { u2: Uint16Array, f8: Float64Array };
  const array = ([at, count, kind]) => new kinds[kind](buffer, 8 + length + at, count);
  return { content, array };
};

// A number of JSON, which has neither infinity nor what is missing.
const number = (x) => (x === null || x === undefined ? NaN : typeof x === "string" ? Number(x.replace("inf", "Infinity")) : Number(x));

// The records of the runs that have a curve: `curve(name, run)` is a column of one of them.
const recordsOf = (said, array) => {
  const points = array(said.points);
  const begin = [0];
  points.forEach((n) => begin.push(begin.at(-1) + n));
  const place = new Map(said.runs.map((run, i) => [run, i]));
  const known = new Map();
  const special = [0, -Infinity, Infinity, NaN];
  const decoded = (name) => {
    const column = said.columns[name];
    const [codes, low, high, ratios] = ["codes", "low", "high", "ratios"].map((part) => array(column[part]));
    const found = new Float64Array(codes.length);
    for (let i = 0; i < points.length; i += 1) {
      const step = (high[i] - low[i]) / said.largest;
      for (let j = begin[i]; j < begin[i + 1]; j += 1) {
        const value = low[i] + step * codes[j];
        found[j] = codes[j] > said.largest ? special[codes[j] - said.largest - 1] : ratios[i] ? Math.exp(value) : value;
        if (column.whole) found[j] = Math.round(found[j]);
      }
    }
    return found;
  };
  const column = (name) => {
    if (!known.has(name)) known.set(name, decoded(name));
    return known.get(name);
  };
  const curve = (name, run) => {
    const i = place.get(run);
    return column(name).subarray(begin[i], begin[i + 1]);
  };
  return { names: Object.keys(said.columns), has: (run) => place.has(run), curve, thinned: said.thinned };
};
