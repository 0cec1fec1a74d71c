// The course's generator on ONNX Runtime Web: four steps of DDIM, as in recipes/export_onnx.py.
// Everything is read from one folder of this site; no other address is asked.
import { noise } from "./noise.mjs";
import { tokens } from "./prompt.mjs";

export const FILES = ["text_encoder.onnx", "unet.onnx", "decoder.onnx"];

// The three networks of `folder` (an address that ends in /). `report(done, all)` counts bytes.
export async function load(folder, report, signal) {
  const get = async (name) => fetch(new URL(name, folder), { signal }).then((answer) => {
    if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
    return answer;
  });
  const facts = await (await get("generator.json")).json();
  const ort = await import(new URL("onnxruntime/ort.wasm.bundle.min.mjs", folder));
  ort.env.wasm.numThreads = 1;
  const all = FILES.reduce((sum, name) => sum + facts.files[name].bytes, 0);
  const networks = [];
  let done = 0;
  for (const name of FILES) {
    const parts = [];
    const reader = (await get(name)).body.getReader();
    for (let part; !(part = await reader.read()).done; ) {
      parts.push(part.value);
      report((done += part.value.length), all);
    }
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
    networks.push(await ort.InferenceSession.create(bytes));
    signal.throwIfAborted();
  }
  const [text, unet, decoder] = networks;
  return { facts, ort, text, unet, decoder };
}

// One image as grey values: Uint8Array of side * side. `report(done, all)` counts steps and, last, the decoder.
// Between two steps the event loop turns, so that a wish to stop is heard.
export async function make({ facts, ort, text, unet, decoder }, { prompt, seed, steps }, report, signal) {
  const tensor = (type, data, ...shape) => new ort.Tensor(type, data, shape);
  const turn = async (done) => {
    report(done, steps + 1);
    await new Promise((resolve) => setTimeout(resolve));
    signal.throwIfAborted();
  };
  const { ids } = tokens(prompt, facts.tokenizer);
  const { words } = await text.run({ ids: tensor("int32", ids, 1, ids.length) });
  const times = facts.times[steps];
  const count = facts.latents.reduce((a, b) => a * b);
  let x = noise(seed, 0, count);
  for (const [k, t] of times.entries()) {
    await turn(k);
    const { v } = await unet.run({ x: tensor("float32", x, 1, ...facts.latents), t: tensor("float32", [t], 1), words });
    x = ddim(x, v.data, facts.alphas_cumprod[t], facts.alphas_cumprod[times[k + 1]] ?? 1);
  }
  await turn(steps);
  const { image } = await decoder.run({ x: tensor("float32", x, 1, ...facts.latents) });
  const grey = Uint8Array.from(image.data, (v) => Math.round(127.5 * (Math.min(1, Math.max(-1, v)) + 1)));
  report(steps + 1, steps + 1);
  return { grey, side: image.dims.at(-1) };
}

// One step from the share of signal a to b: what the picture seems to be, and the grain on it, mixed anew.
function ddim(x, v, a, b) {
  return x.map((_, i) => {
    const clean = Math.sqrt(a) * x[i] - Math.sqrt(1 - a) * v[i];
    const grain = Math.sqrt(a) * v[i] + Math.sqrt(1 - a) * x[i];
    return Math.sqrt(b) * clean + Math.sqrt(1 - b) * grain;
  });
}
