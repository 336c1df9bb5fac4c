// Lines as the legend shows them.

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
