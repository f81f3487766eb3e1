// Runs every job of jobs.json through WebAssembly and posts the outputs, or the error, to the server.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // threads would need a page that is isolated from other origins

// A picture as the browser decodes it, without its alpha: uint8 (1, height, width, 3).
async function decoded(picture) {
  const bitmap = await createImageBitmap(await (await fetch(picture)).blob());
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  return new ort.Tensor("uint8", rgba.filter((_, i) => i % 4 !== 3), [1, bitmap.height, bitmap.width, 3]);
}

async function run({ model, input, shape, picture }) {
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const feed = picture
    ? await decoded(picture)
    : new ort.Tensor("float32", new Float32Array(await (await fetch(input)).arrayBuffer()), shape);
  const feeds = { [session.inputNames[0]]: feed };
  const outputs = await session.run(feeds);
  const named = Object.entries(outputs).map(([name, t]) => [name, { shape: t.dims, values: Array.from(t.data) }]);
  await session.release();
  return Object.fromEntries(named);
}

const report = { agent: navigator.userAgent, runtime: ort.env.versions.web, results: [] };
try {
  for (const job of await (await fetch("jobs.json")).json()) report.results.push(await run(job));
} catch (error) {
  report.error = String(error);
}
await fetch("report", { method: "POST", body: JSON.stringify(report) });
