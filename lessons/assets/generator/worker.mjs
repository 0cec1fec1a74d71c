// The generator in a thread of its own, so that the page stays awake while it works.
// Takes {folder, job} or "stop"; answers {stage, done, all} on the way, then {grey, side, seconds} or {error}.
import { load, make } from "./generator.mjs";

let generator, wish;

self.onmessage = async ({ data }) => {
  if (data === "stop") return wish?.abort();
  wish = new AbortController();
  const { signal } = wish;
  const report = (stage) => (done, all) => self.postMessage({ stage, done, all });
  try {
    const loading = performance.now();
    const fresh = !generator;
    generator ??= await load(data.folder, report("load"), signal);
    const making = performance.now();
    const made = await make(generator, data.job, report("make"), signal);
    const seconds = { load: fresh ? (making - loading) / 1000 : 0, make: (performance.now() - making) / 1000 };
    self.postMessage({ ...made, seconds });
  } catch (error) {
    self.postMessage({ error: String(error.message ?? error), stopped: signal.aborted });
  }
};
