// A classifier in an ONNX file, run by ONNX Runtime Web.

const ARRAYS = { float32: Float32Array, float64: Float64Array, uint8: Uint8ClampedArray };

/** ONNX Runtime Web from the folder ort/ beside this file. */
export async function loadRuntime() {
  const ort = await import("./ort/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1; // several took longer on two cores, and few servers allow them
  ort.env.logLevel = "error";
  return ort;
}

/** Probabilities of class scores; what sums to 1 already is left as it is. */
export function softmax(scores) {
  const sum = scores.reduce((total, score) => total + score, 0);
  if (Math.abs(sum - 1) < 1e-3 && scores.every((score) => score >= 0)) return scores;
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = scores.map((score) => Math.exp(score - most));
  const whole = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / whole);
}

/** The warps and residuals among a file's outputs, as `lse export onnx --warps` names them. */
function sitesOf(outputs) {
  return Object.keys(outputs)
    .filter((name) => name.startsWith("warp_x."))
    .map((name) => {
      const site = name.slice("warp_x.".length);
      const [x, y] = [outputs[name], outputs[`warp_y.${site}`]].map(({ data, dims }) => {
        const values = Array.from(data.subarray(0, dims[1]), Number);
        return { knots: values.map((_, k) => k / (values.length - 1)), values };
      });
      return { name: site, warp: { x, y }, residual: outputs[`residual.${site}`]?.data[0] ?? null };
    });
}

export class Model {
  /** `told` is what play.json says of the file. */
  constructor(ort, told, session) {
    this.ort = ort;
    this.told = told;
    this.session = session;
    this.batch = typeof told.batch === "number" ? told.batch : 1;
  }

  static async load(ort, told) {
    const externalData = told.weights.length ? told.weights : undefined; // { path in the graph, data: file }
    const options = { executionProviders: ["wasm"], externalData };
    return new Model(ort, told, await ort.InferenceSession.create(told.file, options));
  }

  /** The tensor that the file takes for a picture with levels from 0 to 255. */
  input({ width, height, channels, data }) {
    const { type, layout, mean, std, colours } = this.told;
    const one = width * height * channels;
    const values = new ARRAYS[type](one * this.batch);
    const pixels = width * height;
    for (let c = 0; c < channels; c += 1) {
      const from = colours === "bgr" ? channels - 1 - c : c;
      for (let p = 0; p < pixels; p += 1) {
        const level = data[p * channels + from];
        const at = layout === "nhwc" ? p * channels + c : c * pixels + p;
        values[at] = type === "uint8" ? level : (level / 255 - mean[c]) / std[c];
      }
    }
    for (let copy = 1; copy < this.batch; copy += 1) values.copyWithin(copy * one, 0, one);
    const sizes = layout === "nhwc" ? [height, width, channels] : [channels, height, width];
    const bytes = type === "uint8" ? new Uint8Array(values.buffer) : values;
    return new this.ort.Tensor(type, bytes, [this.batch, ...sizes]);
  }

  /** {probabilities, sites: [{name, warp, residual}], milliseconds} of a picture. */
  async answer(picture) {
    const began = performance.now();
    const outputs = await this.session.run({ [this.session.inputNames[0]]: this.input(picture) });
    const scores = outputs[this.session.outputNames[0]];
    const first = Array.from(scores.data.subarray(0, scores.dims[1]), Number);
    return { probabilities: softmax(first), sites: sitesOf(outputs), milliseconds: performance.now() - began };
  }
}
