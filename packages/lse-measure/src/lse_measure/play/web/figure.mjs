// Pictures on the page: drawn on a canvas, with lines over them; and pictures read from files.

import { evaluate } from "./geometry.mjs";

const SVG = "http://www.w3.org/2000/svg";

/** A new element of the page, with attributes, and children or texts in it. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The picture in a file, of 1 or 3 channels. */
export async function readPicture(address, channels) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the picture ${address} cannot be read (${answer.status})`);
  // levels as they are in the file: no profile of colours is applied
  const bitmap = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Float32Array(width * height * channels);
  for (let p = 0; p < width * height; p += 1)
    for (let c = 0; c < channels; c += 1) data[p * channels + c] = rgba[p * 4 + c];
  return { width, height, channels, data };
}

/** A canvas under lines; `box` is its element. */
export class Figure {
  constructor() {
    this.canvas = element("canvas");
    this.lines = document.createElementNS(SVG, "svg");
    this.lines.setAttribute("viewBox", "0 0 1 1");
    this.lines.setAttribute("preserveAspectRatio", "none");
    this.lines.setAttribute("aria-hidden", "true");
    this.box = element("div", { class: "figure" }, this.canvas, this.lines);
  }

  show({ width, height, channels, data }) {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
      this.box.style.aspectRatio = `${width} / ${height}`;
    }
    const context = this.canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let p = 0; p < width * height; p += 1) {
      for (let c = 0; c < 3; c += 1) pixels.data[p * 4 + c] = data[p * channels + (channels === 1 ? 0 : c)];
      pixels.data[p * 4 + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }

  /** Draw lines at `xs` and `ys`, and rectangles [left, top, right, bottom], all of the unit square. */
  draw(xs, ys, boxes = []) {
    const paths = [
      ...xs.map((x) => `M${x} 0V1`),
      ...ys.map((y) => `M0 ${y}H1`),
      ...boxes.map(([left, top, right, bottom]) => `M${left} ${top}H${right}V${bottom}H${left}Z`),
    ];
    let path = this.lines.firstElementChild;
    if (!path) path = this.lines.appendChild(document.createElementNS(SVG, "path"));
    path.setAttribute("d", paths.join(""));
  }

  /** Draw where `warp` sends the lines of a regular grid of `count` cells a side. */
  drawWarp({ x, y }, count = 8) {
    const inner = Array.from({ length: count - 1 }, (_, k) => (k + 1) / count);
    const lines = (map) => inner.map((u) => evaluate(map, u));
    this.draw(lines(x), lines(y));
  }
}
