// The page: the current latent, and the controls that change it.

const $ = (id) => document.getElementById(id);

let facts;
let latent = []; // of the generator if there is one, of the decoder otherwise
let isBusy = false;
let isOutdated = false; // whether the latent has changed since the last request
const ends = { start: null, end: null }; // of the interpolation
const sliders = []; // {input, output, direction}

async function post(name, body) {
  // The token of an explorer that is bound to other interfaces than loopback is in the address.
  const response = await fetch(`api/${name}${location.search}`, { method: "POST", body });
  const result = await response.json();
  if (!response.ok) throw new Error(result.error);
  return result;
}

/** Runs an asynchronous action and shows its error, or hides the last one. */
async function run(action) {
  try {
    await action();
    $("error").hidden = true;
  } catch (error) {
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

/** Makes a latent the current one. */
function move(to) {
  latent = to;
  for (const slider of sliders) {
    const value = dot(latent, slider.direction);
    slider.input.value = value;
    slider.output.textContent = value.toFixed(2);
  }
  render();
}

/** Shows the pictures of the current latent; one request at a time, always for the newest. */
async function render() {
  isOutdated = true;
  if (isBusy) return;
  isBusy = true;
  while (isOutdated) {
    isOutdated = false;
    await run(async () => {
      const pictures = await post("decode", JSON.stringify(latent));
      for (const [name, url] of Object.entries(pictures)) {
        show(name, url, `${name}_${facts.steps[name]}.png`);
      }
    });
  }
  isBusy = false;
}

function show(name, url, file) {
  $(name).hidden = false;
  $(name).querySelector("img").src = url;
  Object.assign($(name).querySelector("a"), { href: url, download: file });
}

async function drawSamples() {
  const samples = await post("samples", $("seed").value || "0");
  $("samples").replaceChildren(...samples.map((sample, index) => {
    const button = document.createElement("button");
    const image = Object.assign(new Image(), { src: sample.picture, alt: `Sample ${index + 1}` });
    button.append(image);
    button.addEventListener("click", () => move(sample.latent));
    return button;
  }));
  return samples;
}

async function encode() {
  const [file] = $("file").files;
  if (!file) return;
  const { latent: encoded, picture } = await post("encode", file);
  show("own", picture, "image.png");
  move(encoded);
}

function addSlider(direction, index) {
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: -4, max: 4, step: 0.01, id: `direction-${index + 1}` });
  const label = document.createElement("label");
  Object.assign(label, { htmlFor: input.id, textContent: `Direction ${index + 1}` });
  const output = document.createElement("output");
  input.addEventListener("input", () => {
    const by = Number(input.value) - dot(latent, direction);
    move(latent.map((x, i) => x + by * direction[i]));
  });
  $("directions").append(label, input, output);
  sliders.push({ input, output, direction });
}

function setEnd(name) {
  const image = $(name).querySelector("img");
  image.src = $("gan" in facts.steps ? "gan" : "vae").querySelector("img").src;
  image.hidden = false;
  ends[name] = latent;
  $("between").disabled = !(ends.start && ends.end);
  $("between").value = name === "start" ? 0 : 1;
}

function dot(a, b) {
  return a.reduce((sum, x, i) => sum + x * b[i], 0);
}

/** Spherical interpolation from a (t = 0) to b (t = 1) (White 2016, arXiv 1609.04468). */
function slerp(a, b, t) {
  const lengths = Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / (lengths || 1))));
  const sine = Math.sin(angle);
  const [p, q] = lengths === 0 || sine < 1e-4
    ? [1 - t, t]
    : [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
  return a.map((x, i) => p * x + q * b[i]);
}

run(async () => {
  facts = await post("facts");
  const steps = Object.entries(facts.steps).map(([name, step]) => `${name} step ${step}`);
  $("run").textContent = `${facts.name}: ${steps.join(", ")}`;
  facts.directions.forEach(addSlider);
  $("reset").addEventListener("click", () => move(latent.map(() => 0)));
  $("seed").addEventListener("change", () => run(drawSamples));
  $("file").addEventListener("change", () => run(encode));
  $("file").disabled = !facts.encoder;
  $("start").addEventListener("click", () => setEnd("start"));
  $("end").addEventListener("click", () => setEnd("end"));
  $("between").addEventListener("input", (event) =>
    move(slerp(ends.start, ends.end, Number(event.target.value))));
  move((await drawSamples())[0].latent);
});
