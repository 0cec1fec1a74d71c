// The form of "Generate in your browser": reads it, drives the worker, shows and saves what comes back.
// Nothing typed here is kept or sent: the only addresses asked are files of this site.
import { nearest } from "./likeness.mjs";
import { png } from "./png.mjs";
import { identifier, tokens, unseen } from "./prompt.mjs";

const folder = new URL("../../generator/", import.meta.url).href;
const form = document.querySelector("#maker form");
const part = (name) => document.querySelector(`#maker [data-part="${name}"]`);
const [status, words, bar, canvas, caption] = ["status", "words", "bar", "canvas", "caption"].map(part);
const [stop, save, dice] = ["stop", "save", "dice"].map(part);
const read = async (name) => {
  const answer = await fetch(new URL(name, folder));
  if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
  return answer;
};
let about, facts, films, worker, made, working = false;

const say = (text, kind = "") => {
  status.textContent = text;
  status.dataset.kind = kind;
};
const settings = () => ({
  prompt: form.prompt.value.trim(), seed: form.seed.valueAsNumber, steps: Number(form.steps.value),
});
const quoted = (list) => list.map((word) => `“${word}”`).join(", ");

// What looks like a person's identifier stops everything; the message never repeats it.
function refusal(prompt) {
  const found = identifier(prompt, about.rules, Object.keys(facts.tokenizer.vocabulary));
  return found && `This holds what looks like ${found.kind} (${found.outline}). No patient data in prompts (HIPAA, `
    + `45 CFR 164.514(b)(2)(i)(${found.letter}); GDPR Articles 4 and 9). Take it out and describe the film alone, e.g. `
    + `“chest x-ray of a child, viral pneumonia”`
    + (found.letter === "A" ? "; if it is no name, write it in small letters." : ".");
}

function remark() {
  const { prompt } = settings();
  const refused = refusal(prompt);
  const strange = unseen(prompt, facts.tokenizer);
  const { cut } = tokens(prompt, facts.tokenizer);
  const said = [];
  if (refused) said.push(refused);
  else if (strange.length) said.push(`Never read: ${quoted(strange)}. The generator draws all the same, without them.`);
  if (cut) said.push(`Too long: the last ${cut === 1 ? "word is" : `${cut} words are`} not read.`);
  words.textContent = said.join(" ");
  words.dataset.kind = refused ? "refused" : "";
  return refused;
}

// While it works Generate keeps its place among the keys and does nothing; Stop hands the focus back when it ends.
function busy(on) {
  working = on;
  form.go.ariaDisabled = on;
  if (document.activeElement === stop) form.go.focus();
  stop.disabled = !on;
  save.disabled = on || !made;
  canvas.parentElement.setAttribute("aria-busy", on);
  if (on) bar.removeAttribute("value");
  else bar.value = 0;
}

function begin(event) {
  event.preventDefault();
  if (working) return;
  if (remark()) return say("Not generated.", "refused");
  const job = settings();
  worker ??= new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => hear(data, job);
  worker.onerror = (event) => hear({ error: event.message || "the worker could not start" }, job);
  busy(true);
  say("Working …");
  worker.postMessage({ folder, job });
}

function hear(data, job) {
  if (data.stage) {
    bar.max = data.all;
    bar.value = data.done;
    const megabytes = `${(data.all / 1e6).toFixed(0)} MB`;
    const now = data.stage === "load" ? `Loading the generator, once: ${megabytes} from this site …` : "Drawing …";
    if (status.textContent !== now) say(now);
    return;
  }
  if (!data.error) show(data, job);
  else if (data.stopped) say("Stopped. Nothing was drawn.");
  else say(`It did not work: ${data.error}. Next: load the page again; the pictures made beforehand stand below.`, "refused");
  busy(false);
}

function show({ grey, side, seconds }, job) {
  made = { grey, side, job, seconds };
  canvas.width = canvas.height = side;
  const pixels = new ImageData(side, side);
  grey.forEach((v, i) => pixels.data.set([v, v, v, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const what = `“${job.prompt}”, seed ${job.seed}, ${job.steps} ${job.steps === 1 ? "step" : "steps"}`;
  canvas.setAttribute("aria-label", `Synthetic chest radiograph: ${what}`);
  caption.textContent = `Synthetic, not for diagnosis. ${what}.`;
  const loading = seconds.load ? `, after ${seconds.load.toFixed(1)} s of loading` : "";
  say(`Drawn in ${seconds.make.toFixed(1)} s on this computer${loading}. ${twin(made)}`);
}

// If this very image was made beforehand in Python: how far the two are apart.
function twin({ grey, side, job }) {
  const same = ({ dataset: d }) => d.prompt === job.prompt && +d.seed === job.seed && +d.steps === job.steps;
  const image = [...document.querySelectorAll(".made-before figure")].find(same)?.querySelector("img");
  if (!image) return "";
  const paper = new OffscreenCanvas(side, side).getContext("2d");
  paper.drawImage(image, 0, 0);
  const other = paper.getImageData(0, 0, side, side).data;
  const most = grey.reduce((far, v, i) => Math.max(far, Math.abs(v - other[4 * i])), 0);
  return most ? `From the picture that Python made beforehand it is at most ${most} of 255 grey levels away.`
    : "It is the picture that Python made beforehand, pixel for pixel.";
}

async function keep() {
  const { grey, side, job, seconds } = made;
  if (nearest(grey, side, films) < about.threshold) {
    return say("Not saved: this image is more like a film of the training data than films of different children are. "
      + "Draw another with a different seed.", "refused");
  }
  const record = { ...job, guidance: facts.guidance, unseen: unseen(job.prompt, facts.tokenizer),
    weights_sha256: facts.weights_sha256, seconds: seconds.make, runtime: "ONNX Runtime Web", synthetic: true };
  const file = await png(grey, side, {
    Synthetic: "true", Warning: "Synthetic image, not for diagnosis", Prompt: job.prompt, Seed: String(job.seed),
    "Weights-SHA256": facts.weights_sha256, Record: JSON.stringify(record),
  });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file) });
  link.download = `synthetic-${job.seed}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
  say(`Saved as ${link.download}; the file says inside that it is synthetic.`);
}

function take({ dataset }) {
  for (const name of ["prompt", "seed", "steps"]) form[name].value = dataset[name];
  form.go.focus();
  form.scrollIntoView({ block: "nearest" });
  form.requestSubmit();
}

async function start() {
  about = await (await read("about.json")).json();
  if (!about.on) return void (form.parentElement.hidden = true);  // the note above says why
  facts = await (await read("generator.json")).json();
  films = new Uint8Array(await (await read("likeness.bin")).arrayBuffer());
  for (const steps of Object.keys(facts.times)) {
    const usual = Number(steps) === facts.steps;
    form.steps.add(new Option(usual ? `${steps} (as it learnt)` : steps, steps, usual, usual));
  }
  form.addEventListener("submit", begin);
  form.prompt.addEventListener("input", remark);
  stop.addEventListener("click", () => worker.postMessage("stop"));
  save.addEventListener("click", () => keep().catch((error) => say(`Not saved: ${error.message}.`, "refused")));
  dice.addEventListener("click", () => { [form.seed.value] = crypto.getRandomValues(new Uint32Array(1)); });
  for (const figure of document.querySelectorAll(".made-before figure")) {
    const button = figure.querySelector("button");
    button.hidden = false;
    button.addEventListener("click", () => take(figure));
  }
  remark();  // a browser that cannot read the patterns stops here, with the form still shut
  form.querySelector("fieldset").disabled = false;
  say(`Ready. The first image loads the generator: ${about.megabytes} MB from this site, nothing from elsewhere.`);
}

start().catch((error) => say(`It cannot start here: ${error.message}. The pictures made beforehand stand below.`, "refused"));
