// What a model answers: bars of probabilities, and where it has canonicalizers, what these found.

import { unscale } from "./geometry.mjs";
import { element, Figure } from "./figure.mjs";

const ROWS = 5;

const percent = (share) => `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)}%`;

/** Squared distance of two lists: Eq. 24 for one view. */
export const distance = (a, b) => a.reduce((sum, value, k) => sum + (value - b[k]) ** 2, 0);

/** Numbers of the `count` largest, the largest first. */
export function largest(values, count) {
  const order = values.map((_, k) => k).sort((a, b) => values[b] - values[a]);
  return order.slice(0, count);
}

export class Card {
  /** `told` is what play.json says of the model. */
  constructor(told) {
    this.told = told;
    this.verdict = element("p", { class: "verdict" });
    this.rows = Array.from({ length: ROWS }, () => {
      const [name, bar, share] = ["name", "bar", "share"].map((kind) => element("span", { class: kind }));
      bar.append(element("span"));
      return element("li", {}, name, bar, share);
    });
    this.chip = element("p", { class: "chip" }, `${told.name} `, element("strong"), element("span")); // by the picture
    this.numbers = element("dl", { class: "numbers" });
    this.sites = element("div", { class: "sites" });
    this.views = new Map();
    const title = element("h2", {}, told.name);
    const list = element("ol", { class: "bars" }, ...this.rows);
    this.box = element("section", { class: "card" }, title, this.verdict, list, this.numbers, this.sites);
  }

  name(label) {
    return this.told.classNames?.[label] ?? `class ${label}`;
  }

  fail(error) {
    this.box.classList.add("failed");
    this.verdict.textContent = `This model cannot be run here: ${error.message ?? error}`;
  }

  /** Show an answer beside the first one, which the model gave to the unchanged picture. */
  show(picture, answer, first) {
    const [said] = largest(first.probabilities, 1);
    const order = largest(answer.probabilities, ROWS);
    const same = order[0] === said;
    for (const box of [this.box, this.chip]) box.classList.toggle("changed", !same);
    const share = percent(answer.probabilities[order[0]]);
    [this.chip.children[0].textContent, this.chip.children[1].textContent] = [this.name(order[0]), ` ${share}`];
    this.verdict.replaceChildren(
      element("strong", {}, this.name(order[0])),
      ` ${share} `,
      element("span", {}, same ? "the first answer" : `first answer: ${this.name(said)}`),
    );
    // the first answer keeps its place at the top, so that its bar can be followed
    const shown = [said, ...order.filter((label) => label !== said)].slice(0, ROWS);
    this.rows.forEach((row, k) => {
      row.hidden = k >= shown.length;
      if (row.hidden) return;
      const height = answer.probabilities[shown[k]];
      const [name, bar, number] = row.children;
      row.classList.toggle("best", shown[k] === order[0]);
      row.classList.toggle("first", k === 0);
      [name.textContent, name.title] = [this.name(shown[k]), this.name(shown[k])];
      bar.firstElementChild.style.transform = `scaleX(${height})`;
      number.textContent = percent(height);
    });
    this.count("InvE", distance(answer.probabilities, first.probabilities).toFixed(3));
    for (const site of answer.sites) this.showSite(picture, site, answer.sites.length > 1);
    if (!answer.sites.length && this.told.adapted)
      this.sites.textContent = "This file gives no warps: write it with lse export onnx --warps to see them.";
  }

  count(name, value) {
    let number = this.numbers.querySelector(`[data-name="${name}"]`);
    if (!number) {
      number = element("dd", { "data-name": name });
      this.numbers.append(element("div", {}, element("dt", {}, name), number));
    }
    number.textContent = value;
  }

  showSite(picture, { name, warp, residual }, several) {
    const where = several ? ` at ${name}` : "";
    if (residual !== null) this.count(`residual${where}`, residual.toPrecision(2));
    if (!this.views.has(name)) {
      const figures = [new Figure(), new Figure()];
      const words = [`the warp it found${where}`, `the canonical form${name === "image" ? "" : ", of the picture"}`];
      this.sites.append(
        ...figures.map((f, k) => element("figure", {}, f.box, element("figcaption", {}, words[k]))),
      );
      this.views.set(name, figures);
    }
    const [found, canonical] = this.views.get(name);
    found.show(picture);
    found.drawWarp(warp);
    canonical.show(unscale(picture, warp));
  }
}
