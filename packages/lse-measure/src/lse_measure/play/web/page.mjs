// The playground: reads play.json, lets people change a picture, and shows what the models answer.

import { Card } from "./cards.mjs";
import { element, readPicture } from "./figure.mjs";
import { scale } from "./geometry.mjs";
import { loadRuntime, Model } from "./model.mjs";
import { objectOf, resized } from "./objects.mjs";
import { Stage } from "./stage.mjs";

const KEPT = 30; // updates over which their time is averaged
const find = (name) => document.getElementById(name);

/** What tools and tests read: updates so far, the last ones' milliseconds, and the last answers. */
export const state = { updates: 0, times: [], answers: [], firsts: [], ready: false };

class Playground {
  constructor(told, models, cards) {
    Object.assign(this, { told, models, cards });
    this.stage = new Stage(() => this.ask());
    find("picture").append(this.stage.box);
    this.wanted = false;
    this.swing = null;
    find("reset").addEventListener("click", () => this.restart());
    find("swing").addEventListener("click", () => this.toggleSwing());
    for (const input of document.querySelectorAll("[name=mode]"))
      input.addEventListener("change", () => this.stage.setMode(input.value));
    told.pictures.forEach((picture, k) => {
      const image = element("img", { src: picture.views[0].image, alt: "" });
      const button = element("button", { type: "button", title: picture.name, "aria-label": picture.name }, image);
      button.addEventListener("click", () => this.open(k));
      find("pictures").append(button);
    });
    find("pictures").hidden = told.pictures.length < 2;
  }

  /** Read the scenes of a picture, one for each way in which models take their pictures. */
  async read({ views }) {
    return Promise.all(
      views.map(async (view, k) => {
        const { channels } = this.told.models.find((model) => model.view === k);
        const picture = await readPicture(view.image, channels);
        const masks = await Promise.all(view.masks.map(({ file }) => readPicture(file, 1)));
        const background = view.background ? await readPicture(view.background, channels) : picture;
        return { picture, background, objects: masks.map((mask, i) => objectOf(view.masks[i].name, mask)) };
      }),
    );
  }

  async open(k) {
    state.ready = false;
    const scenes = await this.read(this.told.pictures[k]);
    // an object that one of the crops leaves out can be resized in none
    const whole = scenes[0].objects.map((_, i) => scenes.every(({ objects }) => objects[i] !== null));
    for (const scene of scenes) scene.objects = scene.objects.filter((_, i) => whole[i]);
    this.scenes = scenes;
    state.firsts = [];
    for (const [i, button] of [...find("pictures").children].entries())
      button.setAttribute("aria-pressed", String(i === k));
    this.stage.open(scenes[0]);
    find("modes").hidden = !scenes[0].objects.length;
    document.querySelector(`[name=mode][value=${this.stage.mode}]`).checked = true;
    await this.ask();
    state.ready = true;
  }

  restart() {
    this.stage.reset();
    this.stage.tell();
  }

  /** Update the page soon; changes that come while it is updated are taken together. */
  async ask() {
    this.wanted = true;
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.wanted) {
        this.wanted = false;
        await new Promise(requestAnimationFrame);
        await this.update();
      }
    } catch (error) {
      complain(error);
    } finally {
      this.busy = false;
    }
  }

  async update() {
    const { warp, factors, touched } = this.stage;
    const { scenes } = this;
    const began = performance.now();
    const pictures = scenes.map((scene) => scale(resized(scene, factors), warp));
    this.shown = pictures;
    this.stage.figure.show(pictures[0]);
    const answers = [];
    for (const [k, model] of this.models.entries()) {
      if (!model) continue;
      const view = model.told.view;
      if (!state.firsts[k]) state.firsts[k] = await model.answer(scenes[view].picture);
      answers[k] = touched ? await model.answer(pictures[view]) : state.firsts[k];
      this.cards[k].show(pictures[view], answers[k], state.firsts[k]);
    }
    if (scenes !== this.scenes) return; // another picture was opened meanwhile
    find("reset").disabled = !touched;
    state.answers = answers;
    state.updates += 1;
    if (touched) this.clock(performance.now() - began);
  }

  clock(milliseconds) {
    state.times.push(milliseconds);
    if (state.times.length > KEPT) state.times.shift();
    const mean = state.times.reduce((a, b) => a + b, 0) / state.times.length;
    find("speed").textContent = `${mean.toFixed(0)} ms an update, ${Math.floor(1000 / mean)} a second`;
  }

  /** Let the lines swing by themselves until they are touched or it is asked for again. */
  toggleSwing() {
    if (this.swing !== null) {
      this.stopSwing();
      return;
    }
    const began = performance.now();
    const round = () => {
      const t = (performance.now() - began) / 1000;
      this.stage.swing(t);
      this.stage.tell();
      this.swing = requestAnimationFrame(round);
    };
    find("swing").setAttribute("aria-pressed", "true");
    this.stage.box.addEventListener("pointerdown", () => this.stopSwing(), { once: true, capture: true });
    round();
  }

  stopSwing() {
    cancelAnimationFrame(this.swing);
    this.swing = null;
    find("swing").setAttribute("aria-pressed", "false");
  }
}

function complain(error) {
  find("trouble").hidden = false;
  find("trouble").textContent = error.message ?? String(error);
}

async function start() {
  const answer = await fetch("play.json");
  if (!answer.ok) throw new Error("play.json is missing beside this page: write the folder with lse play");
  const told = await answer.json();
  const cards = told.models.map((model) => new Card(model));
  find("models").append(...cards.map((card) => card.box));
  find("summary").append(...cards.map((card) => card.chip));
  const ort = await loadRuntime().catch(() => {
    throw new Error(
      "ONNX Runtime Web is missing: put ort.wasm.min.mjs, ort-wasm-simd-threaded.mjs and " +
        "ort-wasm-simd-threaded.wasm of the npm package onnxruntime-web into the folder ort beside this page.",
    );
  });
  const models = [];
  for (const [k, model] of told.models.entries()) // one after the other: loading needs much memory
    models[k] = await Model.load(ort, model).catch((error) => cards[k].fail(error));
  const playground = new Playground(told, models, cards);
  find("loading").hidden = true;
  find("tools").hidden = false;
  state.playground = playground;
  await playground.open(0);
}

globalThis.lse = state;
start().catch((error) => {
  find("loading").hidden = true;
  complain(error);
  state.error = String(error);
});
