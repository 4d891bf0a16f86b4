"use strict";
// The page of `easyfirst serve`: asks /v1/chat/completions, draws the steps as they come, and shows
// what /v1/easyfirst/page makes of the answer. Texts only ever become text nodes.
(() => {
const $ = (id) => document.getElementById(id);
const SPACE = "\u2581", LARGE = 20e6, EDGE = 2048;
const now = { image: null, runs: [], h: 0, step: 0, best: 0, follow: true, request: null, stop: null };

const task = () => document.querySelector("input[name=task]:checked").value;
const say = (text) => { $("say").textContent = text; };

function fail(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function make(tag, name, text, parent) {
  const node = document.createElement(tag);
  node.className = name;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

// ---- The image. ----

function readFile(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

// A file that is larger than the server takes is made smaller here.
async function shrink(file) {
  const bitmap = await createImageBitmap(file), canvas = document.createElement("canvas");
  const scale = Math.min(1, EDGE / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.92);
}

async function takeImage(file) {
  if (!file) return;
  fail("");
  try {
    now.image = file.size > LARGE ? await shrink(file) : await readFile(file);
  } catch {
    fail("The image cannot be read.");
    return;
  }
  if (!now.image.startsWith("data:image/")) {
    now.image = null;
    fail(`${file.name || "The file"} is not an image.`);
    return;
  }
  $("preview").src = now.image;
  showImage();
  say("An image was chosen.");
  $("text").focus();
}

function showImage() {
  $("preview").hidden = $("remove").hidden = !now.image;
  $("drop-note").hidden = !!now.image;
}

function dropImage() {
  now.image = null;
  $("preview").removeAttribute("src");
  $("file").value = $("camera").value = "";
  showImage();
  $("file").focus();
}

// ---- The request. ----

function number(id) {
  return $(id).value === "" ? undefined : Number($(id).value);
}

function requestMake() {
  const kind = task(), text = $("text").value, own = { task: kind };
  for (const name of ["length", "beam", "steps"]) own[name] = number(name);
  if (kind === "translate") own.from = $("from").value, own.to = $("to").value;
  if ($("template").value) own.template = $("template").value;
  const content = [{ type: "text", text }];
  if (kind === "ask") content.push({ type: "image_url", image_url: { url: now.image } });
  return { messages: [{ role: "user", content }], easyfirst: own,
    temperature: number("temperature"), seed: number("seed") };
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = "Bearer " + $("key").value;
  return fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function refusal(response) {
  if (response.status === 401) {
    document.querySelector(".more").open = true;
    $("key").focus();
  }
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts)
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

function busy(on) {
  $("go").setAttribute("aria-disabled", String(on));
  $("cancel").hidden = !on;
  $("result").setAttribute("aria-busy", String(on));
}

function begin(request) {
  Object.assign(now, { runs: [], h: 0, step: 0, best: 0, follow: true, request });
  fail("");
  $("asked").textContent = $("text").value;
  $("answer").replaceChildren();
  $("hypotheses").replaceChildren();
  $("hypotheses").hidden = $("explore").hidden = $("save").hidden = $("shown").hidden = true;
  $("count").textContent = "waiting";
  $("result").hidden = false;
  busy(true);
  say("Asked.");
}

async function ask() {
  if (now.stop) return;
  if (task() === "ask" && !now.image) {
    fail("Choose an image first.");
    $("file").focus();
    return;
  }
  const request = requestMake();
  begin(request);
  now.stop = new AbortController();
  try {
    const body = { ...request, stream: true, easyfirst_steps: true };
    const response = await post("/v1/chat/completions", body, now.stop.signal);
    if (!response.ok) throw new Error(await refusal(response));
    for await (const event of events(response)) take(event);
  } catch (error) {
    fail(error.name === "AbortError" ? "Cancelled." : error.message);
    $("count").textContent = "";
  }
  now.stop = null;
  busy(false);
}

function take(event) {
  const own = event.easyfirst;
  if (event.error) throw new Error(event.error.message);
  if (!own) return;
  if (own.tokens) {
    const run = (now.runs[own.hypothesis] ??= { steps: own.steps, states: [blank(own)] });
    run.states.push(own.tokens);
    if (now.follow && own.hypothesis === now.h) go(run.states.length - 1);
  } else {
    finish(own);
  }
}

const blank = (own) => own.tokens.map((t) => (t.fixed ? t : { piece: "<mask>", masked: true, probability: 0 }));

function finish(own) {
  now.best = now.h = own.best;
  hypothesesMake(own.hypotheses);
  if (now.follow) go(now.runs[now.h].states.length - 1);
  else draw();
  $("explore").hidden = false;
  say("The answer: " + own.hypotheses[own.best].text);
}

// ---- The answer. ----

function draw() {
  const run = now.runs[now.h];
  if (!run) return;
  const cells = run.states[now.step], before = run.states[Math.max(now.step - 1, 0)];
  const final = run.states[run.states.length - 1];
  $("answer").replaceChildren();
  cells.forEach((cell, i) => {
    const piece = cell.masked ? final[i].piece : cell.piece;
    const word = piece.startsWith(SPACE) && i > 0;
    if (word) $("answer").append(" ");
    const text = cell.masked ? "" : piece.replaceAll(SPACE, " ").trim();
    const span = make("span", "token", cell.masked ? "\u2003" : text, $("answer"));
    if (cell.masked) span.classList.add("blank");
    else if (cell.fixed) span.classList.add("fixed");
    else span.classList.add("p" + Math.min(4, Math.floor(cell.probability * 5)));
    if (!cell.masked && before[i].masked && now.step > 0) span.classList.add("new");
    span.title = cell.masked ? "not written yet"
      : cell.fixed ? "given" : `${(100 * cell.probability).toFixed(1)} %`;
  });
  const last = run.states.length - 1, written = cells.filter((c) => !c.masked).length;
  $("step").max = last;
  $("step").value = now.step;
  const count = `step ${now.step} of ${run.steps} · ${written} of ${cells.length} written`;
  $("count").textContent = count;
  $("step").setAttribute("aria-valuetext", count);
  [...$("hypotheses").children].forEach((card, k) => card.setAttribute("aria-pressed", String(k === now.h)));
}

function go(step) {
  const run = now.runs[now.h];
  if (!run) return;
  now.step = Math.min(Math.max(step, 0), run.states.length - 1);
  draw();
}

function move(step) {
  now.follow = false;
  go(step);
  now.follow = now.step === now.runs[now.h]?.states.length - 1;
}

function hypothesesMake(list) {
  $("hypotheses").hidden = list.length < 2;
  list.forEach((h, k) => {
    const card = make("button", "hypothesis", undefined, $("hypotheses"));
    card.type = "button";
    const head = make("span", "head", undefined, card);
    make("span", "", `${h.length} tokens`, head);
    if (k === now.best) make("span", "best", "✓ best", head);
    make("span", "numbers", "score " + h.score.toFixed(3), head);
    make("span", "tokens", h.text, card).dir = "auto";
    card.addEventListener("click", () => {
      now.h = k;
      move(Infinity);
    });
  });
}

// ---- The answer as a page of its own. ----

async function explore() {
  const request = now.request;
  $("explore").hidden = true;
  say("The page of the answer is being made.");
  try {
    const response = await post("/v1/easyfirst/page", request);
    if (!response.ok) throw new Error(await refusal(response));
    if (request !== now.request) return;
    URL.revokeObjectURL($("save").href);
    const address = URL.createObjectURL(new Blob([await response.text()], { type: "text/html" }));
    $("shown").src = $("save").href = address;
    $("shown").hidden = $("save").hidden = false;
    say("Alternatives and attention are below.");
    $("save").focus();
  } catch (error) {
    fail(error.message);
    $("explore").hidden = false;
  }
}

// ---- The page. ----

const words = { ask: ["Question", "Ask"], translate: ["Text", "Translate"],
  summarize: ["Text", "Summarize"], complete: ["Prompt", "Answer"] };

function showTask() {
  const kind = task();
  $("picker").hidden = kind !== "ask";
  $("languages").hidden = kind !== "translate";
  $("text-label").textContent = words[kind][0];
  $("go").textContent = words[kind][1];
}

function scheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return document.documentElement.dataset.theme || (dark ? "dark" : "light");
}

function showScheme() {
  $("theme").textContent = scheme() === "dark" ? "Light colors" : "Dark colors";
}

async function showModel() {
  try {
    const response = await fetch("/v1/models");
    if (response.ok) $("model").textContent = "model " + (await response.json()).data[0].id;
    else if (response.status === 401) $("model").textContent = "an API key is needed (Options)";
  } catch { /* the first question says what is wrong */ }
}

function start() {
  const picker = $("picker");
  $("form").addEventListener("submit", (e) => (e.preventDefault(), ask()));
  $("tasks").addEventListener("change", showTask);
  for (const id of ["file", "camera"]) $(id).addEventListener("change", (e) => takeImage(e.target.files[0]));
  $("remove").addEventListener("click", dropImage);
  $("cancel").addEventListener("click", () => now.stop?.abort());
  $("step").addEventListener("input", () => move(Number($("step").value)));
  $("back").addEventListener("click", () => move(now.step - 1));
  $("forward").addEventListener("click", () => move(now.step + 1));
  $("explore").addEventListener("click", explore);
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = scheme() === "dark" ? "light" : "dark";
    showScheme();
  });
  document.addEventListener("dragover", (e) => (e.preventDefault(), picker.classList.add("over")));
  document.addEventListener("dragleave", () => picker.classList.remove("over"));
  document.addEventListener("drop", (e) => {
    e.preventDefault();
    picker.classList.remove("over");
    takeImage(e.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (e) => {
    const file = [...e.clipboardData.files].find((f) => f.type.startsWith("image/"));
    if (file && task() === "ask") takeImage(file);
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) ask();
    if (e.key === "Escape") now.stop?.abort();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showScheme);
  showTask(), showScheme(), showModel();
}

start();
})();
