"use strict";
// The player of a page. `data` is the block of JSON that apps/show/page.h describes; its texts only
// ever become text nodes.
(() => {
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("trace").textContent);
const MASK = -1, SPACE = "\u2581";
const hypotheses = data.hypotheses.map(unfold);
const steps = Math.max(...hypotheses.map((h) => h.last));
const now = { h: data.best, step: steps, chosen: null, pointed: null, playing: false, timer: 0 };
let answer, cards = [], plot = null;

// ---- The trace. ----

// All states of a hypothesis: states[s][i] is position i after step s, states[0] is all masks but for
// the given tokens. `since` is the step that wrote the token.
function unfold(h) {
  const given = new Set(h.fixed ?? []);
  let cells = Array.from({ length: h.length }, () => ({ piece: MASK, p: 0, likely: [], since: 0 }));
  for (const [i, piece] of h.steps[0].slice(1))
    if (given.has(i)) cells[i] = { piece, p: 1, likely: [], since: 0, given: true };
  const states = [cells], changed = [false], erasing = [false];
  h.steps.forEach((step, k) => {
    const before = cells;
    cells = cells.slice();
    for (const [i, piece, score, likely] of step.slice(1)) {
      if (given.has(i)) continue;
      const since = piece === before[i].piece ? before[i].since : k + 1;
      cells[i] = { piece, p: Math.exp(score), likely, since };
    }
    states.push(cells);
    changed.push(cells.some((c, i) => c.piece !== before[i].piece));
    erasing.push(cells.some((c, i) => c.piece !== before[i].piece && before[i].piece !== MASK));
  });
  const lead = cells.map((c) => c.piece === MASK || data.pieces[c.piece].startsWith(SPACE));
  return { ...h, states, changed, erasing, lead, open: h.length - given.size, last: states.length - 1 };
}

function bare(piece) {
  const text = data.pieces[piece];
  return (text.startsWith(SPACE) ? text.slice(1) : text).replaceAll(SPACE, " ");
}

const visible = (piece) => (bare(piece).trim() ? bare(piece) : "␣");
const stepOf = (h) => Math.min(now.step, h.last);
const filled = (cells) => cells.reduce((n, c) => n + (c.piece !== MASK && !c.given), 0);
const current = () => hypotheses[now.h];

// The token that step s erased at a position, or MASK.
function erased(h, s, i) {
  const before = s > 0 ? h.states[s - 1][i].piece : MASK;
  return before !== h.states[s][i].piece ? before : MASK;
}

const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function percent(p) {
  if (p >= 0.99995) return "100\u00a0%";
  if (p >= 0.99) return Math.min(99.9, 100 * p).toFixed(1) + "\u00a0%";
  if (p >= 0.1) return (100 * p).toFixed(0) + "\u00a0%";
  return p >= 0.001 ? (100 * p).toFixed(1) + "\u00a0%" : "<\u00a00.1\u00a0%";
}

// ---- Elements. ----

function make(tag, name, text, parent) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function color(p) {
  const at = Math.min(Math.max(p, 0), 1) * 4, k = Math.min(Math.floor(at), 3);
  return `color-mix(in srgb, var(--c${k + 1}) ${(100 * (at - k)).toFixed(1)}%, var(--c${k}))`;
}

// Scripts without spaces between words: lines may break between letters, and so between blanks.
const SPACELESS = /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Thai}|\p{Script=Hangul}/u;
const pen = document.createElement("canvas").getContext("2d");

// Widths of the final tokens in em, for the blanks.
function widths(h, box) {
  pen.font = "100px " + getComputedStyle(box).fontFamily;
  return h.states[h.last].map((c) =>
    c.piece === MASK ? 1.2 : Math.max(pen.measureText(bare(c.piece)).width / 100, 0.35));
}

// Which blanks may begin a line: between letters of scripts without spaces, and in words that may be
// longer than a line.
function loose(h, wide) {
  const out = h.states[h.last].map((c) => c.piece !== MASK && SPACELESS.test(bare(c.piece)));
  for (let i = 0, end; i < h.length; i = end) {
    let sum = wide[i];
    for (end = i + 1; end < h.length && !h.lead[end]; end++) sum += wide[end];
    if (sum > 8) out.fill(true, i, end);
  }
  return out;
}

// The tokens of a hypothesis in a box: for each position a permanent span, and before it a text node
// for the space.
class Tokens {
  constructor(h, box) {
    this.h = h;
    this.widths = widths(h, box);
    this.loose = loose(h, this.widths);
    box.replaceChildren();
    this.nodes = h.lead.map(() => {
      const space = document.createTextNode("");
      box.append(space);
      return { space, span: make("span", "token", undefined, box), key: null };
    });
  }
  show(s) {
    this.nodes.forEach((node, i) => {
      const cell = this.h.states[s][i], gone = erased(this.h, s, i);
      const key = [cell.piece, cell.p, gone, cell.since === s].join();
      if (key === node.key) return;
      node.key = key;
      if (cell.piece === MASK) this.blank(node, i, gone);
      else this.token(node, i, cell, gone, cell.since === s);
    });
  }
  blank({ space, span }, i, gone) {
    space.data = i && this.h.lead[i] ? " " : "";
    span.className = "token blank" + (this.loose[i] && gone === MASK ? " loose" : "");
    span.style.backgroundColor = "";
    span.replaceChildren();
    make("span", "gap", "__", span);
    if (gone !== MASK) make("s", "", visible(gone), span);
    span.style.paddingInlineEnd = gone === MASK ? `min(${this.widths[i].toFixed(3)}em, 100%)` : "";
    span.setAttribute("aria-label", gone === MASK ? "blank" : "blank, erased: " + visible(gone));
  }
  token({ space, span }, i, cell, gone, fresh) {
    space.data = i && data.pieces[cell.piece].startsWith(SPACE) ? " " : "";
    const text = bare(cell.piece);
    span.className = "token" + (cell.given ? " given" : fresh ? " new" : "") + (text.trim() ? "" : " none");
    span.style.backgroundColor = cell.given ? "" : color(cell.p);
    span.style.paddingInlineEnd = "";
    span.textContent = text;
    if (gone !== MASK) make("s", "above", visible(gone), span);
    if (cell.given) span.setAttribute("aria-label", `${visible(cell.piece)}, given`);
    else if (gone !== MASK)
      span.setAttribute("aria-label", `${visible(cell.piece)}, instead of ${visible(gone)}`);
    else if (text.trim()) span.removeAttribute("aria-label");
    else span.setAttribute("aria-label", "space");
  }
}

// ---- Tokens of the answer: hover, select, keyboard. ----

function answerMake() {
  const h = current(), box = $("answer");
  box.classList.toggle("long", h.length > 24);
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Answer");
  answer = new Tokens(h, box);
  answer.nodes.forEach(({ span }, i) => {
    span.setAttribute("role", "button");
    span.setAttribute("aria-pressed", "false");
    span.tabIndex = i ? -1 : 0;
    span.addEventListener("pointerenter", () => point(i));
    span.addEventListener("pointerleave", () => point(null));
    span.addEventListener("focus", () => { rove(i); point(i); });
    span.addEventListener("blur", () => point(null));
    span.addEventListener("click", () => choose(now.chosen === i ? null : i));
  });
}

function rove(i) {
  answer.nodes.forEach(({ span }, k) => { span.tabIndex = k === i ? 0 : -1; });
}

function point(i) {
  if (now.pointed === i) return;
  now.pointed = i;
  showPosition();
}

function choose(i) {
  now.chosen = i;
  showPosition();
}

// The position of the final token with the lowest probability, of the dots only if there is nothing else; null if
// there is none.
function leastSure(h) {
  const cells = h.states[h.last];
  const least = (fits) => cells.reduce((found, c, i) =>
    c.piece !== MASK && !c.given && fits(c) && (found === null || c.p < cells[found].p) ? i : found, null);
  return least((c) => visible(c.piece).trim() !== "·") ?? least(() => true);
}

// Shows one position: its card, its attention over the image, its row of the grid.
function showPosition() {
  const i = now.pointed ?? now.chosen;
  answer.nodes.forEach(({ span }, k) => {
    span.classList.toggle("chosen", k === now.chosen);
    span.setAttribute("aria-pressed", String(k === now.chosen));
  });
  showCard(i);
  showAttention(i);
  plot.draw();
}

function showCard(i) {
  const card = $("card"), h = current(), s = stepOf(h);
  card.replaceChildren();
  card.classList.toggle("empty", i === null);
  if (i === null) {
    make("p", "hint", "Point at a token, or click it, to see when it was written, its probability, and the " +
      "top-k alternatives.", card);
    return;
  }
  const cell = h.states[s][i], blank = cell.piece === MASK;
  make("h3", "", blank ? "not written yet" : visible(cell.piece), card).dir = "auto";
  const facts = [`position ${i + 1} of ${h.length}`];
  if (cell.given) facts.unshift("given by the template");
  else if (!blank) facts.unshift(`written in step ${cell.since} of ${h.last}`, `probability ${percent(cell.p)}`);
  facts.push(...erasures(h, s, i));
  if (blank && s > 0) facts.push(`most likely in step ${s}:`);
  make("p", "facts", facts.join(" · "), card);
  const source = blank ? cell : h.states[cell.since][i];
  if (s > 0 && !cell.given) showBars(card, source.likely, blank ? MASK : cell.piece, cell.p);
}

// The tokens erased at a position up to step s, each once with its steps.
function erasures(h, s, i) {
  const steps = new Map();
  for (let t = 1; t <= s; t++) {
    const gone = erased(h, t, i);
    if (gone !== MASK) steps.set(gone, [...(steps.get(gone) ?? []), t]);
  }
  return [...steps].map(([gone, list]) =>
    `“${visible(gone)}” erased in ${list.length > 1 ? "steps" : "step"} ${list.join(", ")}`);
}

// Bars of the likeliest tokens, the likeliest first.
function showBars(card, likely, piece, p) {
  const rows = [];
  for (let k = 0; k < likely.length; k += 2) rows.push([likely[k], Math.exp(likely[k + 1])]);
  if (piece !== MASK && !rows.some((row) => row[0] === piece)) rows.push([piece, p]);
  rows.sort((a, b) => b[1] - a[1]);
  const bars = make("div", "bars", undefined, card);
  for (const [one, share] of rows.slice(0, 8)) {
    make("span", "name" + (one === piece ? " chosen" : ""), visible(one), bars).dir = "auto";
    const bar = make("i", "", undefined, make("span", "bar", undefined, bars));
    bar.style.width = (100 * share).toFixed(2) + "%";
    bar.style.backgroundColor = color(share);
    make("span", "numbers", percent(share), bars);
  }
}

// ---- Attention over the image. ----

// The rectangle of the image inside of its frame, in CSS pixels.
function imageBox(img) {
  const scale = Math.min(img.clientWidth / img.naturalWidth, img.clientHeight / img.naturalHeight);
  const width = img.naturalWidth * scale, height = img.naturalHeight * scale;
  return { left: (img.clientWidth - width) / 2, top: (img.clientHeight - height) / 2, width, height };
}

function showAttention(i) {
  const h = current(), img = $("image"), note = $("attention-note"), canvas = $("attention");
  const maps = img && data.geometry && h.attention;
  note.hidden = !maps;
  canvas.classList.remove("on");
  if (!maps) return;
  const token = i === null ? null : h.states[stepOf(h)][i];
  note.replaceChildren();
  if (!token) {
    make("span", "", "Point at a token to see the model’s attention over the image when it wrote it.", note);
    return;
  }
  if (token.piece === MASK || token.since !== h.states[h.last][i].since) {
    make("span", "", "Attention is recorded for the final tokens only.", note);
    return;
  }
  const map = h.attention[i], sum = map.reduce((a, b) => a + b, 0);
  const most = map.reduce((a, b) => Math.max(a, b), 1);
  const when = token.given ? "of the given token" : "when the model wrote";
  make("span", "", `Attention ${when} “${visible(token.piece)}”: ` +
    `${percent(sum / 1e6)} of it was on the image (mean over heads and layers).`, note);
  const scale = make("span", "scale", "none", note);
  make("i", "", undefined, scale);
  make("span", "", `${percent(most / 1e6)} in the brightest patch`, scale);
  if (img.naturalWidth) drawAttention(canvas, img, map, most);
}

// A veil over the image, thinner where a patch got more attention.
function drawAttention(canvas, img, map, most) {
  const box = imageBox(img), p = data.geometry, dense = devicePixelRatio || 1, veil = 0.8;
  for (const side of ["left", "top", "width", "height"]) canvas.style[side] = box[side] + "px";
  canvas.width = Math.round(box.width * dense);
  canvas.height = Math.round(box.height * dense);
  const patches = document.createElement("canvas");
  patches.width = patches.height = p.grid;
  const brush = patches.getContext("2d"), pixels = brush.createImageData(p.grid, p.grid);
  map.forEach((value, k) => pixels.data.set([12, 14, 18, 255 * veil * (1 - value / most)], 4 * k));
  brush.putImageData(pixels, 0, 0);
  const c = canvas.getContext("2d"), sx = canvas.width / p.width, sy = canvas.height / p.height;
  const square = [p.left * sx, p.top * sy, p.size * p.scale_x * sx, p.size * p.scale_y * sy];
  c.fillStyle = `rgba(12, 14, 18, ${veil})`;
  c.fillRect(0, 0, canvas.width, canvas.height);
  c.clearRect(...square);
  c.imageSmoothingQuality = "high";
  c.drawImage(patches, ...square);
  canvas.classList.add("on");
}

// ---- The grid. ----

class Plot {
  constructor(canvas) {
    this.canvas = canvas;
    canvas.addEventListener("pointermove", (e) => this.describe(this.at(e)));
    canvas.addEventListener("pointerleave", () => this.describe(null));
    canvas.addEventListener("click", (e) => {
      const at = this.at(e);
      if (!at) return;
      stop();
      go(at.step);
      choose(at.position);
    });
  }
  // The current colors; a canvas cannot use CSS variables.
  palette() {
    const probe = make("span", "", undefined, document.body), colors = {};
    for (const name of ["ink", "quiet", "line", "sheet", "accent", "c0", "c1", "c2", "c3", "c4"]) {
      probe.style.color = `var(--${name})`;
      colors[name] = getComputedStyle(probe).color;
    }
    colors.font = getComputedStyle(document.body).fontFamily;
    probe.remove();
    colors.ramp = [0, 1, 2, 3, 4].map((k) => colors["c" + k].match(/[\d.]+/g).map(Number));
    return colors;
  }
  measure(c, colors) {
    const h = current(), width = this.canvas.parentElement.clientWidth;
    const row = h.length <= 16 ? 26 : h.length <= 40 ? 20 : 15;
    c.font = `bold ${row > 18 ? 13 : 11}px ${colors.font}`;
    const labels = h.states[h.last].map((cell) => (cell.piece === MASK ? "" : visible(cell.piece)));
    const longest = Math.max(...labels.map((text) => c.measureText(text).width));
    const left = Math.ceil(Math.min(longest, width * 0.3)) + 14, column = (width - left - 2) / h.last;
    return { width, row, labels, left, column, top: 4, height: h.length * row + 34 };
  }
  draw() {
    const h = current(), canvas = this.canvas, c = canvas.getContext("2d"), colors = this.palette();
    const m = (this.m = this.measure(c, colors)), dense = devicePixelRatio || 1;
    canvas.width = Math.round(m.width * dense);
    canvas.height = Math.round(m.height * dense);
    canvas.style.height = m.height + "px";
    canvas.setAttribute("aria-label", `Grid of ${counted(h.length, "position")} and ` +
      `${counted(h.last, "step")}; the slider goes through the same steps.`);
    c.scale(dense, dense);
    c.textBaseline = "middle";
    for (let i = 0; i < h.length; i++) this.row(c, h, i, m, colors);
    this.axis(c, h, m, colors);
  }
  ramp(colors, p) {
    const at = Math.min(Math.max(p, 0), 1) * 4, k = Math.min(Math.floor(at), 3), f = at - k;
    const mix = [0, 1, 2].map((j) => Math.round(colors.ramp[k][j] * (1 - f) + colors.ramp[k + 1][j] * f));
    return `rgb(${mix})`;
  }
  row(c, h, i, m, colors) {
    const y = m.top + i * m.row, x = (s) => m.left + s * m.column, s = stepOf(h);
    const here = i === (now.pointed ?? now.chosen);
    c.fillStyle = here ? colors.line : colors.sheet;
    c.fillRect(m.left, y + 1, m.width - m.left - 2, m.row - 2);
    c.fillStyle = here ? colors.ink : colors.quiet;
    c.font = `${here ? "bold " : ""}${m.row > 18 ? 13 : 11}px ${colors.font}`;
    c.textAlign = "right";
    c.fillText(this.clip(c, m.labels[i], m.left - 10), m.left - 8, y + m.row / 2);
    for (let t = 1; t <= h.last;) {
      const cell = h.states[t][i];
      let end = t;
      const goes = (next) => next.piece === cell.piece && next.p === cell.p;
      while (end < h.last && goes(h.states[end + 1][i])) end++;
      if (cell.given) this.outline(c, x(0), y, x(h.last) - x(0), m.row, colors);
      else if (cell.piece !== MASK) {
        c.fillStyle = this.ramp(colors, cell.p);
        for (const [from, to, alpha] of [[t - 1, Math.min(end, s), 1], [Math.max(t - 1, s), end, 0.32]]) {
          c.globalAlpha = alpha;
          if (to > from) c.fillRect(x(from), y + 1, x(to) - x(from), m.row - 2);
        }
        c.globalAlpha = 1;
        if (cell.since === t) {
          c.fillStyle = colors.ink;
          c.fillRect(x(t - 1), y + 1, 2, m.row - 2);
        }
      }
      if (erased(h, t, i) !== MASK) this.cross(c, x(t - 0.5), y + m.row / 2, m.row, colors);
      t = end + 1;
    }
  }
  outline(c, x, y, width, row, colors) {
    c.strokeStyle = colors.quiet;
    c.lineWidth = 1;
    c.setLineDash([2, 2]);
    c.strokeRect(x + 0.5, y + 2.5, width - 1, row - 5);
    c.setLineDash([]);
  }
  clip(c, text, width) {
    if (c.measureText(text).width <= width) return text;
    const letters = Array.from(text);
    while (letters.length && c.measureText(letters.join("") + "…").width > width) letters.pop();
    return letters.join("") + "…";
  }
  cross(c, x, y, row, colors) {
    const r = Math.min(4, row / 4);
    c.strokeStyle = colors.ink;
    c.lineWidth = 1.6;
    c.beginPath();
    c.moveTo(x - r, y - r), c.lineTo(x + r, y + r), c.moveTo(x + r, y - r), c.lineTo(x - r, y + r);
    c.stroke();
  }
  axis(c, h, m, colors) {
    const s = stepOf(h), bottom = m.top + h.length * m.row, x = (t) => m.left + (t - 0.5) * m.column;
    if (s > 0) {
      c.strokeStyle = colors.accent;
      c.lineWidth = 2;
      c.strokeRect(m.left + (s - 1) * m.column - 1, m.top - 1, Math.max(m.column, 2) + 2, bottom - m.top + 2);
    }
    c.fillStyle = colors.quiet;
    c.font = `11px ${colors.font}`;
    c.textAlign = "right";
    c.fillText("step", m.left - 8, bottom + 14);
    c.textAlign = "center";
    const wanted = Math.max(1, (m.width - m.left) / 60), raw = h.last / wanted;
    const unit = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((u) => u >= raw) ?? Math.ceil(raw / 1e3) * 1e3;
    for (let t = 1; t <= h.last; t++) {
      if (t !== 1 && t % unit) continue;
      if (t === 1 && unit > 1 && x(unit) - x(1) < 22) continue;
      c.fillText(String(t), Math.min(x(t), m.width - 8), bottom + 14);
    }
  }
  at(event) {
    const h = current(), m = this.m, box = this.canvas.getBoundingClientRect();
    const position = Math.floor((event.clientY - box.top - m.top) / m.row);
    const step = Math.ceil((event.clientX - box.left - m.left) / m.column);
    if (position < 0 || position >= h.length || step > h.last || event.clientX - box.left > m.width) return null;
    return { position, step: Math.max(step, 0) };
  }
  describe(at) {
    const h = current(), note = $("plot-note");
    if (!at || at.step < 1) {
      note.textContent = "";
      return;
    }
    const cell = h.states[at.step][at.position], gone = erased(h, at.step, at.position);
    note.textContent = [`step ${at.step}`, `position ${at.position + 1}`]
      .concat(cell.piece === MASK ? "not written" : [`“${visible(cell.piece)}”`, cell.given ? "given" : percent(cell.p)])
      .concat(gone === MASK ? [] : `“${visible(gone)}” erased`).join(" · ");
  }
}

// ---- Hypotheses. ----

function hypothesesMake() {
  $("hypotheses").hidden = hypotheses.length < 2;
  if (hypotheses.length < 2) return;
  const samples = hypotheses.some((h) => h.sample > 0);
  cards = hypotheses.map((h, k) => {
    const card = make("button", "hypothesis", undefined, $("hypothesis-list"));
    card.type = "button";
    const head = make("span", "head", undefined, card);
    make("span", "", counted(h.length, "token") + (samples ? `, sample ${h.sample + 1}` : ""), head);
    if (k === data.best) make("span", "best", "✓ best", head);
    make("span", "numbers", "score " + h.score.toFixed(3).replace("-", "−"), head);
    const box = make("span", "tokens", undefined, card);
    box.dir = "auto";
    card.addEventListener("click", () => take(k));
    return { card, tokens: new Tokens(h, box) };
  });
}

function take(k) {
  now.h = k, now.chosen = leastSure(hypotheses[k]), now.pointed = null;
  answerMake();
  ticksMake();
  show();
}

// ---- The player. ----

function ticksMake() {
  const h = current();
  $("ticks").replaceChildren();
  h.changed.forEach((changed, s) => {
    if (!changed) return;
    const tick = make("i", h.erasing[s] ? "erasing" : "", undefined, $("ticks"));
    tick.style.left = (100 * s) / steps + "%";
  });
}

function show() {
  const h = current(), s = stepOf(h), cells = h.states[s];
  answer.show(s);
  cards.forEach(({ card, tokens }, k) => {
    tokens.show(stepOf(hypotheses[k]));
    card.setAttribute("aria-pressed", String(k === now.h));
  });
  const count = `step ${s} of ${h.last} · ${filled(cells)} of ${h.open} written`;
  $("step").value = now.step;
  $("step").setAttribute("aria-valuetext", count);
  $("count").textContent = count;
  if (!now.playing) $("say").textContent = `${count}: ${spoken(h, s)}`;
  showPosition();
}

function spoken(h, s) {
  return h.states[s].map((c, i) => {
    const space = i && (c.piece === MASK ? h.lead[i] : data.pieces[c.piece].startsWith(SPACE)) ? " " : "";
    return space + (c.piece === MASK ? "blank" : bare(c.piece));
  }).join("");
}

function go(step) {
  now.step = Math.min(Math.max(step, 0), steps);
  show();
}

// Steps that change nothing play quickly; the others share about ten seconds.
function pause(s) {
  const h = current(), changes = h.changed.filter(Boolean).length || 1, speed = Number($("speed").value);
  const changed = s === 0 || h.changed[Math.min(s, h.last)];
  const ms = changed ? Math.min(Math.max(10000 / changes, 130), 520)
    : Math.min(1500 / Math.max(h.last - changes, 1), 45);
  return ms / speed;
}

function tick() {
  if (now.step >= steps) return stop();
  go(now.step + 1);
  now.timer = setTimeout(tick, pause(now.step));
}

function play() {
  if (now.step >= steps) now.step = 0;
  now.playing = true;
  showPlaying();
  show();
  now.timer = setTimeout(tick, pause(now.step));
}

function stop() {
  clearTimeout(now.timer);
  if (!now.playing) return;
  now.playing = false;
  showPlaying();
  show();
}

function showPlaying() {
  document.body.classList.toggle("playing", now.playing);
  document.body.classList.toggle("moving", now.playing);
  $("play").setAttribute("aria-label", now.playing ? "Pause" : "Play");
  $("say").setAttribute("aria-live", now.playing ? "off" : "polite");
}

const toggle = () => (now.playing ? stop() : play());

function move(step) {
  stop();
  go(step);
}

// ---- Keys. ----

function tokenKey(event, i) {
  const nodes = answer.nodes, key = event.key;
  if (key === "ArrowRight" || key === "ArrowLeft")
    nodes[Math.min(Math.max(i + (key === "ArrowRight" ? 1 : -1), 0), nodes.length - 1)].span.focus();
  else if (key === "ArrowUp" || key === "ArrowDown") move(now.step + (key === "ArrowUp" ? 1 : -1));
  else if (key === "Enter" || key === " ") choose(now.chosen === i ? null : i);
  else return false;
  return true;
}

function pageKey(event) {
  const keys = {
    " ": toggle,
    ArrowLeft: () => move(now.step - 1),
    ArrowRight: () => move(now.step + 1),
    Home: () => move(0),
    End: () => move(steps),
    Escape: () => choose(null),
  };
  if (!keys[event.key]) return false;
  keys[event.key]();
  return true;
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  const target = event.target, tag = target.tagName;
  if (tag === "SELECT") return;
  if (tag === "BUTTON" && (event.key === " " || event.key === "Enter")) return;
  const i = answer.nodes.findIndex(({ span }) => span === target);
  if ((i >= 0 && tokenKey(event, i)) || pageKey(event)) event.preventDefault();
}

// ---- Light and dark. ----

const dark = matchMedia("(prefers-color-scheme: dark)");

function scheme() {
  return document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
}

function showScheme() {
  const other = scheme() === "dark" ? "Light" : "Dark";
  $("theme-name").textContent = other;
  $("theme").setAttribute("aria-label", `${other} colors`);
  plot.draw();
}

// ---- The page. ----

function factsMake() {
  const facts = [];
  if (data.template && data.template !== data.question) facts.push("template " + data.template);
  if (data.model) facts.push("model " + data.model);
  if (data.image) facts.push("image " + data.image);
  if (data.dropped_tokens) facts.push(`first ${counted(data.dropped_tokens, "token")} of the prompt dropped`);
  facts.push(data.strategy, `seed ${data.seed}`, counted(current().last, "step"),
    counted(data.evaluations, "model evaluation"));
  $("facts").textContent = facts.join(" · ");
}

function start() {
  document.querySelector(".stage").classList.toggle("has-image", !!$("image"));
  $("view").hidden = !$("image");
  for (const id of ["theme", "player", "legend", "card", "grid", "keys"]) $(id).hidden = false;
  plot = new Plot($("plot"));
  $("given").hidden = !hypotheses.some((h) => h.fixed);
  $("step").max = steps;
  answerMake();
  hypothesesMake();
  ticksMake();
  factsMake();
  $("play").addEventListener("click", toggle);
  $("step").addEventListener("input", () => move(Number($("step").value)));
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = scheme() === "dark" ? "light" : "dark";
    showScheme();
  });
  dark.addEventListener("change", showScheme);
  document.addEventListener("keydown", onKey);
  const resized = new ResizeObserver(() => showPosition());
  resized.observe($("plot").parentElement);
  if ($("image")) resized.observe($("image"));
  choose(leastSure(current()));
  const asked = /^#(\d+)$/.exec(location.hash);
  go(asked ? Number(asked[1]) : steps);
  showScheme();
}

start();
})();
