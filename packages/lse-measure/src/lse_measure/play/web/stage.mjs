// The picture that people change: lines to drag in the warp, corners to pull at objects; by pointer and by keys.

import { evaluate, identity, inverse, moved } from "./geometry.mjs";
import { element, Figure } from "./figure.mjs";

const SEGMENTS = 4;
const RATIO = 4; // slopes of the warp lie within [1 / RATIO, RATIO]
const FACTORS = [0.4, 2.5];
const SPAN = Math.log(FACTORS[1] / FACTORS[0]);
const STEP = 0.02; // what a press of a key moves, a share of the side, or of SPAN
const AXES = ["x", "y"];

const within = (value, [least, most]) => Math.min(Math.max(value, least), most);

export class Stage {
  /** `changed` is called without arguments after every change. */
  constructor(changed) {
    this.changed = changed;
    this.figure = new Figure();
    this.handles = element("div", { class: "handles" });
    this.box = element("div", { class: "stage" }, this.figure.box, this.handles);
    this.figure.box.addEventListener("pointerdown", (event) => this.grab(event, null));
    this.mode = "warp";
    this.objects = [];
    this.size = { width: 1, height: 1 };
    this.reset();
  }

  /** Take the objects of another picture, of which nothing is changed yet. */
  open({ picture, objects }) {
    this.size = picture;
    this.objects = objects;
    if (!objects.length) this.mode = "warp";
    this.reset();
    this.build();
  }

  reset() {
    this.warp = { x: identity(SEGMENTS), y: identity(SEGMENTS) };
    this.factors = this.objects.map(() => 1);
  }

  /** Whether anything differs from the picture in its file. */
  get touched() {
    const { x, y } = this.warp;
    return this.factors.some((f) => f !== 1) || [x, y].some((m) => m.values.some((v, k) => v !== m.knots[k]));
  }

  setMode(mode) {
    this.mode = mode;
    this.build();
  }

  build() {
    this.box.dataset.mode = this.mode;
    const made = [];
    if (this.mode === "warp") {
      for (const axis of AXES) for (let k = 1; k < SEGMENTS; k += 1) made.push(this.handle({ axis, k }));
    } else this.objects.forEach((_, object) => made.push(this.handle({ object })));
    this.handles.replaceChildren(...made);
    this.draw();
  }

  handle(what) {
    const kind = what.axis ?? "object";
    const across = { x: "Vertical line", y: "Horizontal line" }[kind];
    const name = across ? `${across} ${what.k}` : `Size of ${this.objects[what.object].name}`;
    const handle = element("button", { type: "button", role: "slider", class: `handle ${kind}` });
    handle.setAttribute("aria-label", name);
    if (kind !== "object") handle.setAttribute("aria-orientation", kind === "x" ? "horizontal" : "vertical");
    handle.addEventListener("pointerdown", (event) => this.grab(event, what));
    handle.addEventListener("keydown", (event) => this.key(event, what));
    handle.what = what;
    return handle;
  }

  /** Draw lines, boxes and handles where they are now. */
  draw() {
    const inner = (map) => map.values.slice(1, -1);
    if (this.mode === "warp") this.figure.draw(inner(this.warp.x), inner(this.warp.y));
    else this.figure.draw([], [], this.objects.map((_, k) => this.frame(k)));
    for (const handle of this.handles.children) {
      const { axis, k, object } = handle.what;
      const share = axis ? this.warp[axis].values[k] : Math.log(this.factors[object] / FACTORS[0]) / SPAN;
      handle.setAttribute("aria-valuemin", "0");
      handle.setAttribute("aria-valuemax", "100");
      handle.setAttribute("aria-valuenow", (100 * share).toFixed(0));
      const told = axis ? `at ${(100 * share).toFixed(0)}%` : `${this.factors[object].toFixed(2)} times`;
      handle.setAttribute("aria-valuetext", told);
      const corner = axis ? null : this.frame(object);
      const place = { x: axis === "x" ? share : 1, y: axis === "y" ? share : 1 };
      handle.style.left = `${100 * (corner ? within(corner[2], [0, 1]) : place.x)}%`;
      handle.style.top = `${100 * (corner ? within(corner[3], [0, 1]) : place.y)}%`;
    }
  }

  /** The box of an object as it is seen: resized and warped, in the unit square. */
  frame(object) {
    const { box, centre } = this.objects[object];
    const factor = this.factors[object];
    const sides = [this.size.width - 1, this.size.height - 1];
    return box.map((edge, side) => {
      const axis = side % 2;
      const outer = side < 2 ? edge - 0.5 : edge + 0.5;
      const there = (centre[axis] + (outer - centre[axis]) * factor) / sides[axis];
      return evaluate(this.warp[AXES[axis]], within(there, [0, 1]));
    });
  }

  /** Begin to drag: `what` is the handle's, or null for the picture itself. */
  grab(event, what) {
    if (event.button !== 0) return;
    event.preventDefault();
    const grabbed = event.currentTarget;
    grabbed.setPointerCapture(event.pointerId);
    if (what) grabbed.focus({ preventScroll: true });
    const start = this.point(event);
    const drag = this.mode === "warp" ? this.pull(what, start) : this.stretch(what, start);
    if (!drag) return;
    this.box.classList.add("dragging");
    const follow = (next) => {
      drag(this.point(next));
      this.tell();
    };
    const end = () => {
      this.box.classList.remove("dragging");
      grabbed.removeEventListener("pointermove", follow);
      for (const name of ["pointerup", "pointercancel"]) grabbed.removeEventListener(name, end);
    };
    grabbed.addEventListener("pointermove", follow);
    for (const name of ["pointerup", "pointercancel"]) grabbed.addEventListener(name, end);
  }

  /** Where a pointer is in the unit square of the picture. */
  point({ clientX, clientY }) {
    const { left, top, width, height } = this.figure.box.getBoundingClientRect();
    return { x: (clientX - left) / width, y: (clientY - top) / height };
  }

  /** Drag lines: the one of the handle, or on the picture the nearest of either direction. */
  pull(what, start) {
    const nearest = (axis) => {
      const inner = this.warp[axis].values.slice(1, -1);
      return 1 + inner.reduce((best, v, k) => (Math.abs(v - start[axis]) < Math.abs(inner[best] - start[axis]) ? k : best), 0);
    };
    const held = what ? [[what.axis, what.k]] : AXES.map((axis) => [axis, nearest(axis)]);
    const before = held.map(([axis, k]) => this.warp[axis].values[k]);
    return (point) =>
      held.forEach(([axis, k], i) => this.move(axis, k, before[i] + point[axis] - start[axis]));
  }

  move(axis, k, value) {
    this.warp = { ...this.warp, [axis]: moved(this.warp[axis], k, value, RATIO) };
  }

  /** Resize an object: the one of the handle, or the one under the pointer. */
  stretch(what, start) {
    const inside = ([left, top, right, bottom]) =>
      left <= start.x && start.x <= right && top <= start.y && start.y <= bottom;
    const object = what?.object ?? this.objects.findLastIndex((_, k) => inside(this.frame(k)));
    if (object < 0) return null;
    const far = (point) => {
      const { centre } = this.objects[object];
      const sides = { x: this.size.width - 1, y: this.size.height - 1 };
      const [dx, dy] = AXES.map((axis, k) => {
        const there = evaluate(inverse(this.warp[axis]), within(point[axis], [0, 1])) * sides[axis];
        return there - centre[k];
      });
      return Math.hypot(dx, dy);
    };
    const least = 0.05 * Math.max(this.size.width, this.size.height); // nearer the centre a hair would double it
    const [from, before] = [Math.max(far(start), least), this.factors[object]];
    return (point) => this.resize(object, (before * Math.max(far(point), least)) / from);
  }

  resize(object, factor) {
    this.factors = this.factors.map((f, k) => (k === object ? within(factor, FACTORS) : f));
  }

  /** Change the warp, or the sizes in that mode, as they swing after `seconds`. */
  swing(seconds) {
    const wave = (k) => Math.sin(1.3 * seconds + 1.9 * k) * Math.min(1, seconds);
    if (this.mode === "object") {
      this.factors = this.factors.map((_, k) => Math.exp(0.6 * wave(k)));
      return;
    }
    AXES.forEach((axis, side) => {
      const { knots } = this.warp[axis];
      const values = knots.map((knot, k) => knot + (k % SEGMENTS ? 0.11 * wave(k + 1.5 * side) : 0));
      this.warp = { ...this.warp, [axis]: { knots, values } };
    });
  }

  key(event, { axis, k, object }) {
    const down = axis ? 1 : -1; // downwards for a line, smaller for an object
    const sign = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: down, ArrowUp: -down }[event.key];
    if (!sign && event.key !== "Home") return;
    event.preventDefault();
    const step = sign * STEP * (event.shiftKey ? 5 : 1);
    if (!sign && axis) this.move(axis, k, this.warp[axis].knots[k]);
    else if (!sign) this.resize(object, 1);
    else if (axis) this.move(axis, k, this.warp[axis].values[k] + step);
    else this.resize(object, this.factors[object] * Math.exp(step * SPAN));
    this.tell();
  }

  tell() {
    this.draw();
    this.changed();
  }
}
