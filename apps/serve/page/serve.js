"use strict";
// The page of `easyfirst serve`: asks /v1/chat/completions, draws the steps as they come, and shows
// what /v1/easyfirst/page makes of an answer. Questions about one image are a conversation: each is
// a turn with steps of its own, and the turns before it are sent along. Texts only ever become text
// nodes.
(() => {
const $ = (id) => document.getElementById(id);
const SPACE = "\u2581", LARGE = 20e6, EDGE = 2048;
const CONTEXT = 400; // turns that are sent along at most
// The turns, all that are shown; those from `from` on belong together. `stop` ends the request that
// is on its way.
const now = { image: null, turns: [], from: 0, stop: null };

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
  part();
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
  part();
  $("preview").removeAttribute("src");
  $("file").value = $("camera").value = "";
  showImage();
  $("file").focus();
}

// ---- The request. ----

function number(id) {
  return $(id).value === "" ? undefined : Number($(id).value);
}

// What was asked and answered before, as messages.
function context() {
  const kind = task();
  if (!$("context").checked || (kind !== "ask" && kind !== "complete")) return [];
  return now.turns.slice(now.from).filter((t) => t.answer).slice(-CONTEXT).flatMap((t) => [
    { role: "user", content: t.text }, { role: "assistant", content: t.answer }]);
}

function requestMake() {
  const kind = task(), text = $("text").value, own = { task: kind };
  for (const name of ["length", "beam", "steps"]) own[name] = number(name);
  if (kind === "translate") own.from = $("from").value, own.to = $("to").value;
  if ($("template").value) own.template = $("template").value;
  const content = [{ type: "text", text }];
  if (kind === "ask") content.push({ type: "image_url", image_url: { url: now.image } });
  const request = { messages: [...context(), { role: "user", content }], easyfirst: own,
    temperature: number("temperature"), seed: number("seed") };
  const choice = $("choices").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (choice.length) request.structured_outputs = { choice };
  return request;
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

// ---- Turns. ----

function busy(on, turn) {
  $("go").setAttribute("aria-disabled", String(on));
  $("cancel").hidden = !on;
  turn.node.setAttribute("aria-busy", String(on));
}

// From here on a new conversation: the turns above stay, and are no longer sent.
function part() {
  now.from = now.turns.length;
}

// A turn: its node, and in `of` the parts of it by their class.
function turnMake(request) {
  const node = $("turn").content.firstElementChild.cloneNode(true);
  const of = (name) => node.querySelector("." + name);
  const turn = { node, of, request, text: $("text").value, answer: "", runs: [], h: 0, step: 0,
    best: 0, follow: true };
  const number = now.turns.length + 1;
  node.setAttribute("aria-label", `Question ${number}`);
  of("player").setAttribute("aria-label", `Steps of answer ${number}`);
  of("asked").textContent = turn.text;
  of("count").textContent = "waiting";
  of("step").addEventListener("input", () => move(turn, Number(of("step").value)));
  of("back").addEventListener("click", () => move(turn, turn.step - 1));
  of("forward").addEventListener("click", () => move(turn, turn.step + 1));
  of("explore").addEventListener("click", () => explore(turn));
  return turn;
}

function note(turn, text) {
  turn.of("left-out").textContent = text;
  turn.of("left-out").hidden = false;
}

function begin(request) {
  const turn = turnMake(request);
  fail("");
  turn.parted = now.turns.length && now.from === now.turns.length
    ? make("p", "apart note", "A new conversation: what is above is not sent along.", $("talk")) : null;
  $("talk").append(turn.node);
  $("talk").hidden = $("fresh").hidden = false;
  if (now.turns.length > now.from && request.messages.length === 1)
    note(turn, "Asked by itself, without the questions above (Options).");
  now.turns.push(turn);
  if (document.activeElement === $("text")) $("text").select();
  busy(true, turn);
  $("go").scrollIntoView({ block: "nearest" });
  say("Asked.");
  return turn;
}

// A turn without an answer is none.
function takeBack(turn) {
  if (turn.runs.length || turn.answer) {
    turn.of("count").textContent = "no answer";
    return;
  }
  turn.node.remove();
  turn.parted?.remove();
  now.turns.splice(now.turns.indexOf(turn), 1);
  now.from = Math.min(now.from, now.turns.length);
  $("talk").hidden = $("fresh").hidden = !now.turns.length;
}

function fresh() {
  now.stop?.abort();
  for (const turn of now.turns) URL.revokeObjectURL(turn.of("save").href);
  now.turns = [], now.from = 0;
  $("talk").replaceChildren();
  $("talk").hidden = $("fresh").hidden = true;
  fail("");
  $("text").value = "";
  say("A new conversation.");
  $("text").focus();
}

async function ask() {
  if (now.stop) return;
  if (task() === "ask" && !now.image) {
    fail("Choose an image first.");
    $("file").focus();
    return;
  }
  const request = requestMake(), turn = begin(request), stop = now.stop = new AbortController();
  try {
    const body = { ...request, stream: true, easyfirst_steps: !request.structured_outputs };
    const response = await post("/v1/chat/completions", body, stop.signal);
    if (!response.ok) throw new Error(await refusal(response));
    for await (const event of events(response)) take(turn, event);
  } catch (error) {
    if (now.turns.includes(turn)) {
      fail(error.name === "AbortError" ? "Cancelled." : error.message);
      takeBack(turn);
    }
  }
  now.stop = null;
  busy(false, turn);
}

function take(turn, event) {
  const own = event.easyfirst;
  if (event.error) throw new Error(event.error.message);
  for (const choice of event.choices) turn.answer += choice.delta.content ?? "";
  if (!own) return;
  if (own.tokens) {
    const run = (turn.runs[own.hypothesis] ??= { steps: own.steps, states: [blank(own)] });
    run.states.push(own.tokens);
    if (turn.follow && own.hypothesis === turn.h) go(turn, run.states.length - 1);
  } else {
    finish(turn, own);
  }
}

const blank = (own) => own.tokens.map((t) => (t.fixed ? t : { piece: "<mask>", masked: true, probability: 0 }));

function finish(turn, own) {
  const out = own.dropped_turns ?? 0;
  turn.best = turn.h = own.best;
  if (own.choices) {
    choicesMake(turn, own);
  } else {
    hypothesesMake(turn, own.hypotheses);
    if (turn.follow) go(turn, turn.runs[turn.h].states.length - 1);
    else draw(turn);
    turn.of("explore").hidden = false;
  }
  if (out) note(turn, `The model did not read the oldest ${out} of the earlier questions: they did not fit.`);
  say("The answer: " + turn.answer);
}

// ---- An answer. ----

function draw(turn) {
  const run = turn.runs[turn.h], of = turn.of;
  if (!run) return;
  const cells = run.states[turn.step], before = run.states[Math.max(turn.step - 1, 0)];
  const final = run.states[run.states.length - 1];
  of("answer").replaceChildren();
  cells.forEach((cell, i) => {
    const piece = cell.masked ? final[i].piece : cell.piece;
    const word = piece.startsWith(SPACE) && i > 0;
    if (word) of("answer").append(" ");
    const text = cell.masked ? "" : piece.replaceAll(SPACE, " ").trim();
    const span = make("span", "token", cell.masked ? "\u2003" : text, of("answer"));
    if (cell.masked) span.classList.add("blank");
    else if (cell.fixed) span.classList.add("fixed");
    else span.classList.add("p" + Math.min(4, Math.floor(cell.probability * 5)));
    if (!cell.masked && before[i].masked && turn.step > 0) span.classList.add("new");
    span.title = cell.masked ? "not written yet"
      : cell.fixed ? "given" : `${(100 * cell.probability).toFixed(1)} %`;
  });
  const last = run.states.length - 1, written = cells.filter((c) => !c.masked).length;
  of("step").max = last;
  of("step").value = turn.step;
  const count = `step ${turn.step} of ${run.steps} · ${written} of ${cells.length} written`;
  of("count").textContent = count;
  of("step").setAttribute("aria-valuetext", count);
  [...of("hypotheses").children].forEach((card, k) => card.setAttribute("aria-pressed", String(k === turn.h)));
}

function go(turn, step) {
  const run = turn.runs[turn.h];
  if (!run) return;
  turn.step = Math.min(Math.max(step, 0), run.states.length - 1);
  draw(turn);
}

function move(turn, step) {
  turn.follow = false;
  go(turn, step);
  turn.follow = turn.step === turn.runs[turn.h]?.states.length - 1;
}

function hypothesesMake(turn, list) {
  turn.of("hypotheses").hidden = list.length < 2;
  list.forEach((h, k) => {
    const card = make("button", "hypothesis", undefined, turn.of("hypotheses"));
    card.type = "button";
    const head = make("span", "head", undefined, card);
    make("span", "", `${h.length} tokens`, head);
    if (k === turn.best) make("span", "best", "✓ best", head);
    make("span", "numbers", "score " + h.score.toFixed(3), head);
    make("span", "tokens", h.text, card).dir = "auto";
    card.addEventListener("click", () => {
      turn.h = k;
      move(turn, Infinity);
    });
  });
}

// The choices with their probabilities, the likeliest first.
function choicesMake(turn, own) {
  const sorted = [...own.choices].sort((a, b) => b.probability - a.probability);
  turn.of("answer").textContent = turn.answer;
  for (const choice of sorted) {
    const row = make("li", choice.text === turn.answer ? "chosen" : "", undefined, turn.of("choices"));
    make("span", "tokens", choice.text, row).dir = "auto";
    make("span", "numbers", `${(100 * choice.probability).toFixed(1)} %`, row);
    make("i", "", undefined, make("span", "bar", undefined, row)).style.width = `${100 * choice.probability}%`;
  }
  turn.of("choices").hidden = false;
  turn.of("player").hidden = true;
  turn.of("count").textContent = `chosen from ${sorted.length}`;
}

// ---- An answer as a page of its own. ----

async function explore(turn) {
  const of = turn.of;
  of("explore").hidden = true;
  say("The page of the answer is being made.");
  try {
    const response = await post("/v1/easyfirst/page", turn.request);
    if (!response.ok) throw new Error(await refusal(response));
    if (!now.turns.includes(turn)) return;
    const address = URL.createObjectURL(new Blob([await response.text()], { type: "text/html" }));
    of("shown").src = of("save").href = address;
    of("shown").hidden = of("save").hidden = false;
    say("Alternatives and attention are below.");
    of("save").focus();
  } catch (error) {
    fail(error.message);
    of("explore").hidden = false;
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
    if (response.ok) {
      const model = (await response.json()).data[0];
      $("model").textContent = "model " + model.id;
      $("context").checked = model.easyfirst.turns;
    } else if (response.status === 401) $("model").textContent = "an API key is needed (Options)";
  } catch { /* the first question says what is wrong */ }
}

function start() {
  const picker = $("picker");
  $("form").addEventListener("submit", (e) => (e.preventDefault(), ask()));
  $("tasks").addEventListener("change", () => (part(), showTask()));
  for (const id of ["file", "camera"]) $(id).addEventListener("change", (e) => takeImage(e.target.files[0]));
  $("remove").addEventListener("click", dropImage);
  $("cancel").addEventListener("click", () => now.stop?.abort());
  $("fresh").addEventListener("click", fresh);
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
