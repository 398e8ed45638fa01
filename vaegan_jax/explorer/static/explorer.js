// The page: its state, the actions that change it, and its display.

import { Crop } from "./crop.js";
import { axes, coordinate, equal, fromText, moved, slerp, toText } from "./latent.js";
import { LatentMap } from "./map.js";
import { newestOnly, post, request } from "./newest.js";

const MODELS = ["vae", "gan"];
const FIRST_SLIDERS = 8;
const NEAREST = 8;
const MAX_UNDO = 200;
const MAX_UPLOAD = 20 * 2 ** 20;
const BAD_LINK = new Error("The link does not contain a latent of this run.");

const $ = (id) => document.getElementById(id);
const pane = (model) => document.querySelector(`[data-model=${model}]`);
const canvasOf = (model) => pane(model).querySelector("canvas");

let facts;
let latentMap;
let crop;
let allAxes = null; // {directions, units}, once the space is known
let points = null; // Float32Array [4, N]
let z; // the current latent, Array of numbers
let steps = { vae: null, gan: null };
let linkApplied = false;
let undone = [];
let done = []; // committed latents; the last one is the current
let sliders = [];
let ends = { a: null, b: null };
let own = null; // the encoded picture: {latent, pixels}
let file = null;
let pending = []; // inputs not shown yet: [version, time]
let version = 0; // of the state
let shown = 0; // version of the pictures
let errorVersion = 0; // version when the error was shown
let latencies = [];

/* ---- messages ---- */

function announce(text) {
  $("status").textContent = text;
}

function showError(error) {
  $("notice").textContent = error.message;
  $("notice").hidden = false;
  errorVersion = version;
  if (error.status === 404) refreshFacts();
}

/** Hides the error once a newer state was shown. */
function clearError(upTo = Infinity) {
  if (upTo > errorVersion) $("notice").hidden = true;
}

/* ---- pictures ---- */

const picture = newestOnly(async (state) => {
  const response = await post("api/decode", { latent: state.z, ...state.steps });
  const bytes = new Uint8ClampedArray(await response.arrayBuffer());
  let from = 0;
  for (const model of MODELS) {
    if (state.steps[model] === null) continue;
    const size = 4 * facts.image.width * facts.image.height;
    paint(canvasOf(model), bytes.subarray(from, from + size));
    from += size;
  }
  paintDifference();
  clearError(state.version);
  shown = state.version;
  await recordLatency(state.version);
  document.dispatchEvent(new CustomEvent("picture", { detail: state.version }));
}, showError);

function paint(canvas, pixels) {
  const { width, height } = facts.image;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels), width, height), 0, 0);
}

/** Waits for the frame that shows a picture, and records the latency of its inputs. */
function recordLatency(upTo) {
  return new Promise((resolve) => {
    const record = () => {
      const now = performance.now();
      const recent = pending.filter(([of]) => of <= upTo).map(([, since]) => now - since);
      pending = pending.filter(([of]) => of > upTo);
      if (recent.length) {
        latencies = [...latencies, ...recent].slice(-500);
        document.dispatchEvent(new CustomEvent("waited", { detail: recent }));
        const sorted = latencies.toSorted((a, b) => a - b);
        const at = (share) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
        $("latency").textContent = `Latency of the last ${sorted.length} inputs: median ${at(0.5)} ms, 95th percentile ${at(0.95)} ms.`;
      }
      resolve();
    };
    // A hidden page draws no frames.
    if (document.hidden) record();
    else requestAnimationFrame(() => {
      const channel = new MessageChannel(); // its message comes after the frame is painted
      channel.port1.onmessage = record;
      channel.port2.postMessage(0);
    });
  });
}

function paintDifference() {
  if ($("difference").hidden || MODELS.some((model) => steps[model] === null)) return;
  const { width, height } = facts.image;
  const [a, b] = MODELS.map((model) => canvasOf(model).getContext("2d").getImageData(0, 0, width, height).data);
  const out = new Uint8ClampedArray(a.length);
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i] - b[i]);
    if (i % 4 === 3) out[i] = 255;
    else {
      out[i] = 2 * difference;
      sum += difference ** 2;
    }
  }
  paint($("difference").querySelector("canvas"), out);
  const root = Math.sqrt(sum / (0.75 * a.length));
  $("difference-size").textContent = `${root.toFixed(1)} of 255 RMS, shown at double brightness`;
}

/** Requests the pictures of the current state. */
function render(since) {
  version += 1;
  if (since !== undefined) pending.push([version, since]);
  picture({ z: z.map(Math.fround), steps: { ...steps }, version });
  scheduleUpdates();
  showState();
}

/** Resolves once the newest state is shown. */
function rendered() {
  const expected = version;
  if (shown >= expected) return Promise.resolve();
  return new Promise((resolve) => {
    const check = ({ detail }) => {
      if (detail < expected) return;
      document.removeEventListener("picture", check);
      resolve();
    };
    document.addEventListener("picture", check);
  });
}

/* ---- the state ---- */

function move(to, { commit = true, since, keepPlaying = false } = {}) {
  if (!keepPlaying) stopPlaying();
  z = to.map((x) => Math.min(1000, Math.max(-1000, x)));
  if (commit) commitState();
  render(since);
}

function commitState() {
  if (done.length && equal(done.at(-1), z)) return;
  done.push([...z]);
  if (done.length > MAX_UNDO) done.shift();
  undone = [];
  showState();
}

function undo() {
  if (!equal(done.at(-1), z)) commitState();
  if (done.length < 2) return;
  undone.push(done.pop());
  move([...done.at(-1)], { commit: false });
  announce("Undone");
}

function redo() {
  if (!undone.length) return;
  done.push(undone.pop());
  move([...done.at(-1)], { commit: false });
  announce("Redone");
}

async function random() {
  try {
    move((await (await post("api/random", {})).json()).latent);
    announce("Random latent");
  } catch (error) {
    showError(error);
  }
}

function reset() {
  move(facts.space ? [...facts.space.middle] : z.map(() => 0));
  announce("Mean of the latents");
}

function showState() {
  $("undo").disabled = done.length < 2;
  $("redo").disabled = !undone.length;
  if (allAxes) {
    for (const slider of sliders) slider.show();
    const [x, y] = allAxes[$("map-axes").value];
    latentMap.put([coordinate(z, x), y ? coordinate(z, y) : 0]);
  }
}

let updateTimer;
/** Updates the link and the nearest images after a short pause. */
function scheduleUpdates() {
  clearTimeout(updateTimer);
  updateTimer = setTimeout(() => {
    history.replaceState(null, "", fragment());
    findNearest();
  }, 250);
}

function fragment() {
  const parts = [`z=${toText(z)}`];
  for (const model of MODELS) if (steps[model] !== null) parts.push(`${model}=${steps[model]}`);
  return `#${parts.join("&")}`;
}

/** Applies the state in the link as far as it is valid: "none", "applied" or "invalid". */
function fromLink() {
  const params = new URLSearchParams(location.hash.slice(1));
  for (const model of MODELS) {
    const step = Number(params.get(model));
    if (params.has(model) && facts.checkpoints[model].includes(step)) steps[model] = step;
  }
  showTimelines();
  if (!params.has("z")) return "none";
  const latent = fromText(params.get("z"), facts.latent_size);
  if (latent) z = latent;
  return latent ? "applied" : "invalid";
}

/* ---- checkpoints ---- */

function showTimelines() {
  for (const model of MODELS) {
    const available = facts.checkpoints[model];
    const box = pane(model);
    if (!available.includes(steps[model])) steps[model] = available.at(-1) ?? null;
    const none = !available.length;
    box.querySelector(".none").hidden = !none;
    for (const part of ["canvas", ".timeline", ".save"]) box.querySelector(part).hidden = none;
    if (none) continue;
    const input = box.querySelector("input");
    input.max = available.length - 1;
    input.value = available.indexOf(steps[model]);
    input.disabled = box.querySelector(".play").disabled = available.length < 2;
    input.setAttribute("aria-valuetext", `step ${steps[model]}`);
    box.querySelector("output").textContent = steps[model].toLocaleString("en");
    const name = model === "vae" ? "decoder" : "generator";
    canvasOf(model).setAttribute("aria-label", `The ${name}'s picture at step ${steps[model]}`);
  }
  $("save-pair").disabled = $("show-difference").disabled = MODELS.some((m) => steps[m] === null);
}

function wireTimeline(model) {
  const box = pane(model);
  const input = box.querySelector("input");
  const button = box.querySelector(".play");
  const go = (index, since) => {
    steps[model] = facts.checkpoints[model][index];
    showTimelines();
    render(since);
  };
  input.addEventListener("input", (event) => go(Number(input.value), event.timeStamp));
  let playing = 0;
  button.addEventListener("click", async () => {
    const mine = playing = playing ? 0 : Date.now();
    button.setAttribute("aria-pressed", Boolean(playing));
    const available = facts.checkpoints[model];
    let at = steps[model] === available.at(-1) ? 0 : available.indexOf(steps[model]);
    while (playing === mine && at < facts.checkpoints[model].length) {
      go(at++);
      await Promise.race([rendered(), new Promise((r) => setTimeout(r, 5000))]);
      await new Promise((resolve) => setTimeout(resolve, 350));
    }
    if (playing === mine) playing = 0;
    button.setAttribute("aria-pressed", Boolean(playing));
  });
  box.querySelector(".save").addEventListener("click", () =>
    save(canvasOf(model), `${model === "vae" ? "decoder" : "generator"}_${steps[model]}`));
}

async function refreshFacts() {
  try {
    facts = await (await request("api/facts")).json();
  } catch {
    return; // other requests show the error
  }
  const before = { ...steps };
  showTimelines();
  // A shown checkpoint was deleted, or the first one of a network was saved.
  if (MODELS.some((model) => steps[model] !== before[model])) render();
  showData();
}

/* ---- the data and its space ---- */

let dataTimer;
async function showData() {
  const { data } = facts;
  const note = {
    reading: `The data set is being encoded: ${Math.round(100 * data.progress)} %.`,
    ready: data.count < data.total
      ? `${data.count.toLocaleString("en")} of the ${data.total.toLocaleString("en")} training images, evenly spaced.`
      : `${data.count.toLocaleString("en")} training images.`,
    absent: `The map and the nearest images need the data set. ${data.note}`,
  }[data.state];
  $("data-note").textContent = note;
  $("nearest-note").textContent = data.state === "reading" ? note : "The data set is not available.";
  $("nearest-note").hidden = data.state === "ready";
  $("map-jump").disabled = data.state !== "ready";
  if (facts.space && !allAxes) {
    allAxes = axes(facts.space);
    buildSliders(FIRST_SLIDERS);
    if (done.length === 1 && !linkApplied) {
      done = [];
      move([...facts.space.middle]);
    }
    showState();
  }
  if (data.state === "ready" && !points) {
    points = new Float32Array(await (await request("api/points")).arrayBuffer());
    showPoints();
    findNearest();
  }
  clearTimeout(dataTimer); // a single timer
  if (data.state === "reading") dataTimer = setTimeout(refreshFacts, 700);
}

function showPoints() {
  if (!points) return;
  const half = points.length / 2;
  const first = $("map-axes").value === "directions" ? 0 : half;
  latentMap.show(points.subarray(first, first + half));
  showState();
}

function buildSliders(count) {
  sliders = [];
  for (const kind of ["directions", "units"]) {
    const box = $(`sliders-${kind}`);
    box.replaceChildren();
    allAxes[kind].slice(0, count).forEach((axis, i) => {
      const input = Object.assign(document.createElement("input"), {
        type: "range", min: -4, max: 4, step: 0.01, id: `${kind}-${i}`,
      });
      const label = Object.assign(document.createElement("label"), {
        textContent: axis.name, htmlFor: input.id,
      });
      const output = document.createElement("output");
      output.htmlFor.add(input.id);
      const show = () => {
        const value = coordinate(z, axis);
        if (document.activeElement !== input || Math.abs(input.value - value) > 0.006) input.value = value;
        output.textContent = value.toFixed(2);
        input.setAttribute("aria-valuetext", `${value.toFixed(2)} standard deviations`);
      };
      input.addEventListener("input", (event) =>
        move(moved(z, axis, Number(input.value)), { commit: false, since: event.timeStamp }));
      input.addEventListener("change", commitState);
      for (const part of [input, label, output]) {
        part.addEventListener("dblclick", () => move(moved(z, axis, 0)));
      }
      box.append(label, input, output);
      sliders.push({ show });
      show();
    });
  }
  const maximum = Math.max(allAxes.directions.length, allAxes.units.length);
  $("more").hidden = maximum <= FIRST_SLIDERS;
  $("more").textContent = count < maximum ? "Show more" : "Show fewer";
}

async function goToExample(index) {
  try {
    move((await (await request(`api/example/${index}`)).json()).latent);
    announce(`Latent of training image ${index}`);
  } catch (error) {
    showError(error);
  }
}

/* ---- nearest images ---- */

const nearest = newestOnly(async (args) => {
  const { nearest: rows } = await (await post("api/nearest", args)).json();
  $("nearest-list").replaceChildren(...rows.map(({ index, distance }) => {
    const name = `Training image ${index}, distance ${distance.toFixed(1)}`;
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", title: `${name}: go to its latent` });
    button.append(
      Object.assign(document.createElement("img"), { src: `api/example/${index}.png`, alt: name }),
      Object.assign(document.createElement("span"), { className: "faint", textContent: distance.toFixed(1) }),
    );
    button.addEventListener("click", () => goToExample(index));
    item.append(button);
    return item;
  }));
}, showError);

function findNearest() {
  if (facts.data.state !== "ready" || playing) return;
  let [by, model] = $("nearest-by").value.split(" ");
  model ??= steps.gan === null ? "vae" : "gan";
  if (steps[model] === null) model = model === "gan" ? "vae" : "gan";
  nearest({ latent: z.map(Math.fround), by, model, step: steps[model], count: NEAREST });
}

/* ---- your picture ---- */

async function openFile(chosen) {
  if (!chosen) return;
  if (!facts.encoder) return showError(new Error("Pictures cannot be encoded: this run has no VAE."));
  if (chosen.size > MAX_UPLOAD) return showError(new Error(`The file is larger than ${MAX_UPLOAD / 2 ** 20} MB.`));
  clearError();
  file = chosen;
  selectTab("picture");
  if (await crop.open(file)) {
    $("crop").hidden = false;
    $("drop").hidden = true;
    $("crop-frame").focus();
    announce("Crop the picture, then encode it.");
  } else encode(null); // the server may support a format that the browser does not
}

async function encode(cut) {
  try {
    const response = await request(`api/encode${cut ? `?crop=${cut}` : ""}`, {
      method: "POST", headers: { "content-type": "application/octet-stream" }, body: file,
    });
    const result = await response.json();
    own = { latent: result.latent, pixels: Uint8Array.from(atob(result.picture), (c) => c.charCodeAt(0)) };
  } catch (error) {
    return showError(error);
  } finally {
    closeCrop();
  }
  $("own").hidden = false;
  paint($("own").querySelector("canvas"), own.pixels);
  countPanes();
  move([...own.latent]);
  await rendered();
  if (!ends.a) setEnd("a");
  else if (!ends.b) setEnd("b");
  announce("The picture is encoded.");
}

function closeCrop() {
  $("crop").hidden = true;
  $("drop").hidden = false;
  $("file").value = "";
}

function countPanes() {
  $("panes").dataset.count = [...$("panes").children].filter((child) => !child.hidden).length;
}

/* ---- morph ---- */

function setEnd(name) {
  const model = steps.gan === null ? "vae" : "gan";
  const canvas = $(`end-${name}`);
  const { width, height } = facts.image;
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(canvasOf(model), 0, 0);
  ends[name] = [...z];
  canvas.setAttribute("aria-label", `${name === "a" ? "Start" : "End"} of the morph: set`);
  const ready = Boolean(ends.a && ends.b);
  $("morph").disabled = $("play").disabled = !ready;
  if (name === "b" || !ready) showMorph(name === "a" ? 0 : 1);
  else showMorph(0);
}

function showMorph(t) {
  $("morph").value = t;
  $("morph-at").textContent = `${Math.round(100 * t)} %`;
}

function morphTo(t, options) {
  showMorph(t);
  move(slerp(ends.a, ends.b, t), options);
}

let playing = 0;
function stopPlaying() {
  if (!playing) return;
  cancelAnimationFrame(playing);
  playing = 0;
  $("play").setAttribute("aria-pressed", "false");
  $("play").setAttribute("aria-label", "Play the morph");
}

function togglePlaying() {
  if (playing) {
    stopPlaying();
    commitState();
    return findNearest();
  }
  if ($("play").disabled) return;
  $("play").setAttribute("aria-pressed", "true");
  $("play").setAttribute("aria-label", "Stop the morph");
  let before = performance.now();
  let place = Number($("morph").value) % 1; // 0 to 1 forwards, 1 to 2 backwards
  const frame = (now) => {
    place = (place + Math.max(0, now - before) / 1000 / Number($("seconds").value)) % 2;
    before = now;
    playing = requestAnimationFrame(frame);
    morphTo(place <= 1 ? place : 2 - place, { commit: false, keepPlaying: true });
  };
  playing = requestAnimationFrame(frame);
}

/* ---- saving ---- */

function save(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    announce(`Saved ${name}.png`);
  }, "image/png");
}

function savePair() {
  if ($("save-pair").disabled) return;
  const { width, height } = facts.image;
  const both = Object.assign(document.createElement("canvas"), { width: 2 * width, height });
  MODELS.forEach((model, i) => both.getContext("2d").drawImage(canvasOf(model), i * width, 0));
  save(both, `decoder_${steps.vae}_generator_${steps.gan}`);
}

async function share() {
  history.replaceState(null, "", fragment());
  try {
    await navigator.clipboard.writeText(location.href);
    announce("The link is copied.");
    $("share").textContent = "Copied";
  } catch {
    announce("The link is in the address bar.");
    $("share").textContent = "In the address bar";
  }
  setTimeout(() => { $("share").textContent = "Copy link"; }, 1500);
}

/* ---- tabs and keys ---- */

const TABS = ["map", "sliders", "picture", "morph"];
function selectTab(name, focus = false) {
  for (const tab of TABS) {
    const chosen = tab === name;
    $(`panel-${tab}`).hidden = !chosen;
    $(`tab-${tab}`).setAttribute("aria-selected", chosen);
    $(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
    if (chosen && focus) $(`tab-${tab}`).focus();
  }
}

function onKey(event) {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    return event.shiftKey ? redo() : undo();
  }
  const typing = event.target.closest?.("input:not([type=range]), select, textarea");
  if (!$("keys").checked || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && event.target.closest?.("button, summary, input, label")) return;
  const action = {
    r: random, 0: reset, u: undo, U: redo, s: savePair, " ": togglePlaying,
    d: () => $("show-difference").click(),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function wire() {
  const click = (id, action) => $(id).addEventListener("click", action);
  click("random", random);
  click("reset", reset);
  click("undo", undo);
  click("redo", redo);
  click("share", share);
  click("save-pair", savePair);
  $("show-difference").addEventListener("change", (event) => {
    $("difference").hidden = !event.target.checked;
    countPanes();
    paintDifference();
  });
  $("smooth").addEventListener("change", (event) => document.body.classList.toggle("smooth", event.target.checked));
  $("nearest-by").addEventListener("change", findNearest);
  MODELS.forEach(wireTimeline);

  TABS.forEach((name, i) => {
    click(`tab-${name}`, () => selectTab(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) selectTab(TABS[(i + by + TABS.length) % TABS.length], true);
    });
  });
  latentMap = new LatentMap($("map"), {
    move: (at, commit, since) => {
      if (!allAxes) return;
      const pair = allAxes[$("map-axes").value].slice(0, 2);
      move(pair.reduce((to, axis, i) => moved(to, axis, at[i]), z), { commit, since });
      if (commit) announce(`At ${at.map((c) => c.toFixed(1)).join(" and ")} standard deviations`);
    },
    jump: goToExample,
  });
  click("map-jump", () => latentMap.jump());
  $("map-axes").addEventListener("change", showPoints);
  click("more", () => {
    const maximum = Math.max(allAxes.directions.length, allAxes.units.length);
    buildSliders(sliders.length > 2 * FIRST_SLIDERS ? FIRST_SLIDERS : maximum);
  });

  crop = new Crop($("crop-frame"), $("crop-size"), facts.image.width / facts.image.height);
  $("file").addEventListener("change", () => openFile($("file").files[0]));
  click("crop-encode", () => encode(crop.text));
  click("crop-cancel", closeCrop);
  click("own-remove", () => { $("own").hidden = true; countPanes(); });
  click("own-latent", () => move([...own.latent]));
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    openFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => openFile(event.clipboardData.files[0]));

  click("set-a", () => setEnd("a"));
  click("set-b", () => setEnd("b"));
  $("morph").addEventListener("input", (event) => {
    stopPlaying();
    morphTo(Number(event.target.value), { commit: false, since: event.timeStamp });
  });
  $("morph").addEventListener("change", commitState);
  click("play", togglePlaying);

  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => {
    const link = fromLink();
    if (link === "applied") move(z);
    else render();
    if (link === "invalid") showError(BAD_LINK);
  });
  // A run in training saves new checkpoints.
  setInterval(() => { if (!document.hidden) refreshFacts(); }, 20_000);
}

async function begin() {
  try {
    facts = await (await request("api/facts")).json();
  } catch (error) {
    return showError(error);
  }
  const { width, height } = facts.image;
  $("run").textContent = `${facts.name}, ${width}×${height}, ${facts.latent_size} latent dimensions`;
  document.title = `${facts.name}: latent explorer`;
  z = Array(facts.latent_size).fill(0);
  wire();
  const link = fromLink();
  linkApplied = link === "applied";
  commitState();
  render();
  await showData();
  if (link === "invalid") showError(BAD_LINK);
  document.documentElement.dataset.ready = "yes";
}

begin();
