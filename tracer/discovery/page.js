
"use strict";

// --- values ---------------------------------------------------------------------------------------------------------

const found = JSON.parse(document.getElementById("found").textContent);
const VERDICTS = {
  "ready": "every call gains",
  "with guard": "the large calls gain",
  "not yet": "would gain over another link, or with another acceptor",
  "no": "cannot gain",
};
const GAINS = ["ready", "with guard"];
const byName = new Map(found.candidates.map((candidate) => [candidate.name, candidate]));
found.candidates.forEach((candidate, i) => { candidate.rank = i + 1; });

function bytesText(nbytes) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (nbytes < 999.5) return `${unit === "B" || nbytes >= 99.5 ? nbytes.toFixed(0) : nbytes.toFixed(1)} ${unit}`;
    nbytes /= 1000;
  }
  return `${nbytes.toFixed(1)} TB`;
}

const threeDigits = (value) => Number(value.toPrecision(3)).toString();

function secondsText(seconds) {
  if (seconds < 999.5e-9) return `${(seconds * 1e9).toFixed(0)} ns`;
  if (seconds < 999.5e-6) return `${threeDigits(seconds * 1e6)} \u00b5s`;
  if (seconds < 0.9995) return `${threeDigits(seconds * 1e3)} ms`;
  return `${seconds < 999.5 ? threeDigits(seconds) : seconds.toFixed(0)} s`;
}

function percent(share, signed = false) {
  const value = share * 100;
  const text = value.toFixed(value !== 0 && Math.abs(value) < 9.95 ? 1 : 0);
  return `${signed && value > 0 ? "+" : ""}${text.replace("-", "\u2212")}\u202f%`;
}

const countText = (mean) => mean >= 99.5 ? Math.round(mean).toLocaleString("en") : threeDigits(mean);
const known = (value, text) => value === null || value === undefined ? "\u2013" : text(value);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const syscallsOf = (candidate) => candidate.trial && sum(Object.values(candidate.trial.syscalls));
const movedBy = (candidate) => candidate.trial && candidate.trial.bytes_out + candidate.trial.bytes_back;
const verdictClass = (verdict) => verdict.replace(" ", "-");

// Control and format characters, which would hide or turn around what stands beside them, as escapes.
const printable = (text) => text.replace(/[^\P{C}\u00ad]|[\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

function splitName(candidate) {
  if (candidate.library) {
    const suffix = `:${candidate.function}`;
    return [candidate.name.endsWith(suffix) ? candidate.name.slice(0, -suffix.length) : candidate.library, candidate.function];
  }
  const at = candidate.function.lastIndexOf(":");
  return [`python:${candidate.function.slice(0, Math.max(at, 0))}`, candidate.function.slice(at + 1)];
}

// --- elements -------------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map((child) => typeof child === "string" ? printable(child) : child));
  return node;
}
const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const drawn = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function showTip(event, lines) {
  const tip = $("tip");
  tip.replaceChildren(element("b", {}, lines[0]), ...lines.slice(1).map((line) => element("span", {}, line)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const right = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const below = event.clientY + 18 + box.height < innerHeight ? event.clientY + 18 : event.clientY - box.height - 12;
  tip.style.left = `${Math.max(right, 4)}px`;
  tip.style.top = `${Math.max(below, 4)}px`;
}
const hideTip = () => { $("tip").hidden = true; };

function verdictLines(candidate) {
  const lines = [candidate.verdict + (candidate.reason ? `: ${candidate.reason}` : "")];
  if (candidate.here_s !== null) {
    lines.push(`a call takes ${secondsText(candidate.here_s)} here, ${known(candidate.there_s, secondsText)} there`);
  }
  if (candidate.trial) {
    lines.push(`${bytesText(candidate.trial.bytes_out)} out, ${bytesText(candidate.trial.bytes_back)} back`);
  }
  if (candidate.gain !== null) lines.push(`${percent(candidate.gain, true)} of the program's time`);
  return lines;
}

// A shape for each verdict, of the area of a circle with that radius: colour is never the only sign.
function markPath(verdict, radius) {
  const square = radius * 0.886, diamond = radius * 1.253, triangle = radius * 1.347;
  return {
    "ready": `M${-radius},0a${radius},${radius} 0 1,0 ${2 * radius},0a${radius},${radius} 0 1,0 ${-2 * radius},0Z`,
    "with guard": `M0,${-diamond}L${diamond},0L0,${diamond}L${-diamond},0Z`,
    "not yet": `M0,${-triangle}L${triangle * 0.866},${triangle / 2}H${-triangle * 0.866}Z`,
    "no": `M${-square},${-square}H${square}V${square}H${-square}Z`,
  }[verdict];
}

// --- header ---------------------------------------------------------------------------------------------------------

function drawHeader() {
  const best = found.candidates.filter((candidate) => GAINS.includes(candidate.verdict));
  const { link, samples } = found;
  const way = `${link.acceptor} (round trip ${secondsText(link.rtt_s)}, ${bytesText(link.bytes_per_s)}/s)`;
  $("lead").append(printable(best.length
    ? `Worth a split on the way to ${way}: ${best.slice(0, 3).map((one) => splitName(one)[1]).join(", ")}` +
      `${best.length > 3 ? ` and ${best.length - 3} more` : ""}.`
    : `Nothing in it is worth a split on the way to ${way}.`));
  for (const [verdict, meaning] of Object.entries(VERDICTS)) {
    const mark = drawn("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" },
      drawn("path", { d: markPath(verdict, 5.5) }));
    mark.style.width = "16px";
    mark.style.margin = "0";
    $("legend").append(element("li", { class: verdictClass(verdict) }, mark, element("span", {}, verdict), element("small", {}, meaning)));
  }
  const { overhead } = found;
  const steps = [`${percent(overhead.sampling)} while it was sampled`];
  if (overhead.counting !== null) steps.push(`${percent(overhead.counting)} while calls were counted`);
  if (overhead.trying_s !== null) steps.push(`${secondsText(overhead.trying_s)} in all for trying calls`);
  const lost = percent(samples.not_unwound / Math.max(samples.taken, 1));
  const lines = [
    `${countText(samples.taken)} samples in ${secondsText(found.duration_s)} (${samples.way}, ${samples.frequency} Hz); ` +
      `${countText(samples.not_unwound)} of them (${lost}) not unwound, ${countText(samples.python)} in Python.`,
    `Overhead on the program: ${steps.join(", ")}.`,
    `Times there are predictions for ${way}; the link is ${link.origin}.`,
    ...found.notes,
    `radium ${found.radium}, process ${found.pids.join(", ")}.`,
  ];
  $("how").append(...lines.map((line) => element("li", {}, line)));
}

// --- flame graph ----------------------------------------------------------------------------------------------------

const ROW = 21, CHARACTER = 7.25, MARGIN = 4;

class Flame {
  constructor(svg, tree) {
    this.svg = svg;
    this.total = Math.max(tree.samples, 1);
    this.root = this.place(tree, null, 0, false);
    this.zoomed = this.focused = this.root;
    this.sought = "";
    svg.addEventListener("click", (event) => this.on(event, (frame) => this.zoom(frame)));
    svg.addEventListener("mousemove", (event) => this.on(event, (frame) => showTip(event, this.lines(frame))));
    svg.addEventListener("mouseleave", hideTip);
    svg.addEventListener("keydown", (event) => this.key(event));
    svg.addEventListener("focusin", (event) => this.on(event, (frame) => { this.focused = frame; this.tell(frame); }));
  }

  // Frames know where they begin, in samples from the left.
  place(node, parent, start, isInside) {
    const candidate = byName.get(node.name);
    const frame = { name: node.name, samples: node.samples, parent, start, candidate, isInside, children: [] };
    frame.depth = parent ? parent.depth + 1 : 0;
    const goes = isInside || (candidate !== undefined && GAINS.includes(candidate.verdict));
    let at = start;
    for (const child of [...node.children].sort((a, b) => b.samples - a.samples)) {
      frame.children.push(this.place(child, frame, at, goes));
      at += child.samples;
    }
    return frame;
  }

  on(event, act) {
    const group = event.target.closest(".frame");
    if (group) act(group.frame); else hideTip();
  }

  lines(frame) {
    const own = frame.samples - sum(frame.children.map((child) => child.samples));
    const shares = `${percent(frame.samples / this.total)} of the samples, ${percent(own / this.total)} in itself`;
    return [frame.name, shares, ...(frame.candidate ? verdictLines(frame.candidate) : [])];
  }

  tell(frame) {
    $("status").textContent = printable(this.lines(frame).join(" \u00b7 "));
  }

  zoom(frame) {
    this.zoomed = this.focused = frame;
    $("reset").disabled = frame === this.root;
    hideTip();
    const hadFocus = this.svg.contains(document.activeElement);
    this.draw();
    if (hadFocus) this.focused.group.focus();
    this.tell(frame);
  }

  key(event) {
    const frame = this.focused, beside = frame.parent ? frame.parent.children : [frame];
    const at = beside.indexOf(frame);
    const next = {
      ArrowUp: frame.parent, ArrowDown: frame.children[0], ArrowLeft: beside[at - 1], ArrowRight: beside[at + 1], Home: this.root,
    }[event.key];
    if (event.key === "Enter" || event.key === " ") this.zoom(frame);
    else if (event.key === "Escape") this.zoom(this.root);
    else if (next && next.group) next.group.focus();
    else if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
  }

  seek(text) {
    this.sought = text.trim().toLowerCase();
    this.draw();
    if (!this.sought) { $("status").textContent = ""; return; }
    const share = this.share(this.root);
    $("status").textContent = share ? `${percent(share / this.total)} of the samples are in what matches` : "Nothing matches.";
  }

  matches(frame) { return this.sought !== "" && frame.name.toLowerCase().includes(this.sought); }

  // Samples in frames that match, each counted once.
  share(frame) { return this.matches(frame) ? frame.samples : sum(frame.children.map((child) => this.share(child))); }

  draw() {
    this.width = Math.max(this.svg.clientWidth, 200);
    this.rows = 0;
    const groups = [];
    for (let above = this.zoomed.parent; above; above = above.parent) groups.unshift(this.group(above, 0, this.width, "above"));
    this.forget(this.root);
    groups.forEach((group) => { group.frame.group = group; });
    this.add(this.zoomed, groups);
    this.svg.classList.toggle("searching", this.sought !== "");
    this.svg.setAttribute("height", (this.rows + 1) * ROW);
    this.svg.replaceChildren(...groups);
    if (!this.focused.group) this.focused = this.zoomed;
    this.focused.group.setAttribute("tabindex", "0");
  }

  forget(frame) {
    frame.group = null;
    frame.children.forEach((child) => this.forget(child));
  }

  add(frame, groups) {
    const scale = this.width / Math.max(this.zoomed.samples, 1);
    const width = frame.samples * scale;
    if (width < 0.5 && frame !== this.zoomed) return;
    frame.group = this.group(frame, (frame.start - this.zoomed.start) * scale, width, "");
    groups.push(frame.group);
    frame.children.forEach((child) => this.add(child, groups));
  }

  group(frame, x, width, more) {
    this.rows = Math.max(this.rows, frame.depth);
    const kind = frame.candidate ? verdictClass(frame.candidate.verdict) : frame.isInside ? "plain inside" : "plain";
    const group = drawn("g", {
      class: `frame ${kind} ${more} ${this.matches(frame) ? "hit" : ""}`.replace(/\s+/g, " ").trim(),
      role: "treeitem", "aria-level": frame.depth + 1, "aria-label": printable(this.lines(frame).join(", ")), tabindex: "-1",
      transform: `translate(${x.toFixed(2)},${frame.depth * ROW})`,
    }, drawn("rect", { width: width.toFixed(2), height: ROW, rx: 2 }));
    group.frame = frame;
    const label = shortened(printable(frame.name), Math.floor((width - 2 * MARGIN) / CHARACTER));
    if (label) group.append(drawn("text", { x: MARGIN, y: 14.5 }, label));
    return group;
  }
}

// What identifies a function is the end of its name.
function shortened(name, room) {
  if (name.length <= room) return name;
  const tail = name.slice(name.lastIndexOf(":") + 1);
  if (tail.length <= room) return tail;
  return room >= 4 ? `${tail.slice(0, room - 1)}\u2026` : "";
}

// --- scatter --------------------------------------------------------------------------------------------------------

const MEASURES = {
  bytes: {
    of: movedBy,
    even: (here) => (here - found.link.rtt_s) * found.link.bytes_per_s,
    axis: "bytes moved by a call, out and back", tick: bytesText,
    label: `break-even: ${secondsText(found.link.rtt_s)} + bytes / (${bytesText(found.link.bytes_per_s)}/s)`,
    hint: "On the dashed line the way over the link takes as long as the call takes here. Right of it there is time left for " +
      "computing there; left of it no acceptor is fast enough. Larger marks take more of the program's time.",
  },
  there: {
    of: (candidate) => candidate.there_s,
    even: (here) => here,
    axis: "time of a call there, with its way (predicted)", tick: secondsText,
    label: "break-even: as long there as here",
    hint: "Below the dashed line a call is quicker there, way included. Larger marks take more of the program's time. " +
      "Choose a mark to see the calls that were observed of it.",
  },
};
const PLOT = { left: 74, right: 16, top: 14, bottom: 46 };

class Scatter {
  constructor(svg) {
    this.svg = svg;
    this.measure = MEASURES.bytes;
    this.chosen = null;
    svg.addEventListener("mousemove", (event) => {
      const dot = event.target.closest(".dot");
      if (dot) showTip(event, [dot.candidate.name, ...verdictLines(dot.candidate)]); else hideTip();
    });
    svg.addEventListener("mouseleave", hideTip);
    svg.addEventListener("click", (event) => this.choose(event));
    svg.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") this.choose(event); });
  }

  choose(event) {
    const dot = event.target.closest(".dot");
    if (!dot) return;
    event.preventDefault();
    choose(dot.candidate, true);
  }

  draw() {
    const points = found.candidates.filter((one) => one.here_s > 0 && this.measure.of(one) > 0);
    const missing = found.candidates.length - points.length;
    $("scatter-hint").textContent = this.measure.hint + (missing ? ` Not shown: ${missing} without a tried call.` : "");
    this.svg.replaceChildren();
    this.svg.setAttribute("height", points.length ? Math.max(300, Math.min(440, this.svg.clientWidth * 0.5)) : 0);
    if (!points.length) return;
    this.scale(points);
    this.drawEven();
    this.drawAxes();
    this.drawCalls();
    this.drawDots(points);
  }

  calls() { return this.measure === MEASURES.there && this.chosen ? this.chosen.sizes.filter((one) => one.here_s > 0 && one.there_s > 0) : []; }

  scale(points) {
    this.width = Math.max(this.svg.clientWidth, 280);
    this.height = Number(this.svg.getAttribute("height"));
    this.taken = [];  // boxes in which there is text or a mark
    const calls = this.calls();
    this.x = logScale([...points, ...calls].map((one) => one.here_s), PLOT.left, this.width - PLOT.right);
    this.y = logScale([...points.map(this.measure.of), ...calls.map((one) => one.there_s)], this.height - PLOT.bottom, PLOT.top);
  }

  // The line within the plot, and the region right of it and below it.
  drawEven() {
    const { x, y } = this, steps = 400, at = [];
    for (let i = 0; i <= steps; i++) {
      const here = x.low * (x.high / x.low) ** (i / steps), even = this.measure.even(here);
      if (even >= y.low && even <= y.high) at.push([x(here), y(even)]);
    }
    if (at.length < 2) return;
    const path = at.map((point) => point.map((value) => value.toFixed(1)).join(",")).join("L");
    const right = this.width - PLOT.right, bottom = this.height - PLOT.bottom;
    const end = at[at.length - 1][0];
    const corner = end < right - 1 ? `L${right},${PLOT.top}` : "";
    this.svg.append(
      drawn("path", { class: "region", d: `M${at[0][0].toFixed(1)},${bottom}L${path}${corner}L${right},${bottom}Z` }),
      drawn("path", { class: "even", d: `M${path}` }),
    );
    // Where the line is highest there is most room beside it.
    const [labelX, labelY] = at[Math.floor(at.length * 0.9)], wide = this.measure.label.length * 6.6;
    if (labelX - 12 - wide < PLOT.left) return;
    this.svg.append(drawn("text", { class: "even-label", x: labelX - 12, y: labelY, "text-anchor": "end" }, this.measure.label));
    this.taken.push([labelX - 12 - wide, labelY - 11, labelX - 12, labelY + 3]);
  }

  drawAxes() {
    const bottom = this.height - PLOT.bottom, axis = drawn("g", { class: "axis" });
    for (const tick of this.x.ticks((this.width - PLOT.left) / 70)) {
      axis.append(drawn("line", { x1: this.x(tick), x2: this.x(tick), y1: PLOT.top, y2: bottom }),
        drawn("text", { x: this.x(tick), y: bottom + 17, "text-anchor": "middle" }, secondsText(tick)));
    }
    for (const tick of this.y.ticks(this.height / 30)) {
      axis.append(drawn("line", { x1: PLOT.left, x2: this.width - PLOT.right, y1: this.y(tick), y2: this.y(tick) }),
        drawn("text", { x: PLOT.left - 8, y: this.y(tick) + 4, "text-anchor": "end" }, this.measure.tick(tick).replace(".0 ", " ")));
    }
    axis.append(
      drawn("text", { x: (this.width + PLOT.left) / 2, y: this.height - 8, "text-anchor": "middle" }, "time of a call here"),
      drawn("text", { transform: `translate(13,${bottom / 2 + PLOT.top})rotate(-90)`, "text-anchor": "middle" }, this.measure.axis),
    );
    this.svg.append(axis);
  }

  drawCalls() {
    this.svg.append(...this.calls().map((one) => drawn("circle", { class: "call", r: 2.5, cx: this.x(one.here_s), cy: this.y(one.there_s) })));
  }

  drawDots(points) {
    const taken = this.taken;
    const bySize = [...points].sort((a, b) => b.inclusive - a.inclusive);
    for (const candidate of bySize) {
      const radius = 4 + 16 * Math.sqrt(candidate.inclusive);
      const x = this.x(candidate.here_s), y = this.y(this.measure.of(candidate));
      const dot = drawn("g", {
        class: `dot ${verdictClass(candidate.verdict)}${candidate === this.chosen ? " chosen" : ""}`, tabindex: "0", role: "button",
        "aria-label": printable([candidate.name, ...verdictLines(candidate)].join(", ")), transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
      }, drawn("path", { d: markPath(candidate.verdict, radius) }));
      dot.candidate = candidate;
      this.svg.append(dot);
      taken.push([x - radius, y - radius, x + radius, y + radius]);
    }
    for (const candidate of bySize) this.label(candidate, taken);
  }

  // Beside the mark, where nothing else stands; left away where there is no such place.
  label(candidate, taken) {
    const name = shortened(printable(splitName(candidate)[1]), 28), wide = name.length * CHARACTER;
    const x = this.x(candidate.here_s), y = this.y(this.measure.of(candidate)), gap = 4 + 16 * Math.sqrt(candidate.inclusive) + 5;
    const places = [[x + gap, y + 4], [x - gap - wide, y + 4], [x - wide / 2, y - gap - 1], [x - wide / 2, y + gap + 10]];
    for (const [left, base] of places) {
      const box = [left, base - 11, left + wide, base + 3];
      const isIn = left > PLOT.left && left + wide < this.width && base > PLOT.top + 8 && base < this.height - PLOT.bottom;
      if (isIn && taken.every((other) => box[0] > other[2] || box[2] < other[0] || box[1] > other[3] || box[3] < other[1])) {
        taken.push(box);
        this.svg.append(drawn("text", { class: "dot-label", x: left.toFixed(1), y: base.toFixed(1) }, name));
        return;
      }
    }
  }
}

// From values to pixels, with whole powers of ten at both ends.
function logScale(values, from, to) {
  const least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
  const low = Math.floor(Math.log10(least) - 0.15), high = Math.max(Math.ceil(Math.log10(most) + 0.15), low + 1);
  const scale = (value) => from + (to - from) * (Math.log10(value) - low) / (high - low);
  scale.low = 10 ** low;
  scale.high = 10 ** high;
  scale.ticks = (room) => {
    const step = Math.max(1, Math.ceil((high - low + 1) / room)), ticks = [];
    for (let power = low; power <= high; power += step) ticks.push(10 ** power);
    return ticks;
  };
  return scale;
}

// --- table ----------------------------------------------------------------------------------------------------------

const COLUMNS = [
  { title: "#", key: (one) => one.rank, text: String, first: "ascending" },
  { title: "function", key: (one) => splitName(one)[1].toLowerCase(), first: "ascending", isText: true },
  { title: "verdict", key: (one) => Object.keys(VERDICTS).indexOf(one.verdict), first: "ascending", isText: true },
  { title: "time", key: (one) => one.inclusive, text: (share) => percent(share) },
  { title: "calls", key: (one) => one.calls, text: countText },
  { title: "out", key: (one) => one.trial && one.trial.bytes_out, text: bytesText },
  { title: "back", key: (one) => one.trial && one.trial.bytes_back, text: bytesText },
  { title: "syscalls", key: syscallsOf, text: countText },
  { title: "here", key: (one) => one.here_s, text: secondsText },
  { title: "there", key: (one) => one.there_s, text: secondsText },
  { title: "gain", key: (one) => one.gain, text: (share) => percent(share, true) },
];

class Table {
  constructor(table) {
    this.body = element("tbody");
    this.column = COLUMNS[0];
    this.direction = "ascending";
    this.open = new Set();
    this.heads = COLUMNS.map((column) => {
      const button = element("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.sort(column));
      return element("th", { scope: "col", class: column.isText ? "text" : "" }, button);
    });
    table.append(element("thead", {}, element("tr", {}, ...this.heads)), this.body);
  }

  sort(column) {
    const other = this.direction === "ascending" ? "descending" : "ascending";
    this.direction = column === this.column ? other : column.first || "descending";
    this.column = column;
    this.draw();
  }

  // Unknown values come last in both directions.
  sorted() {
    const sign = this.direction === "ascending" ? 1 : -1, key = this.column.key;
    const isKnown = (one) => key(one) !== null && key(one) !== undefined;
    const all = found.candidates.filter(isKnown).sort((a, b) => key(a) < key(b) ? -sign : key(a) > key(b) ? sign : a.rank - b.rank);
    return [...all, ...found.candidates.filter((one) => !isKnown(one))];
  }

  draw() {
    COLUMNS.forEach((column, i) => this.heads[i].setAttribute("aria-sort", column === this.column ? this.direction : "none"));
    this.body.replaceChildren(...this.sorted().flatMap((one) => this.open.has(one) ? [this.row(one), details(one)] : [this.row(one)]));
  }

  row(candidate) {
    const [owner, name] = splitName(candidate);
    const isOpen = this.open.has(candidate);
    const button = element("button", { type: "button", "aria-expanded": String(isOpen) }, name);
    const badge = element("span", { class: `badge ${verdictClass(candidate.verdict)}` }, candidate.verdict);
    const cells = COLUMNS.map((column) => {
      if (column.title === "function") return element("td", { class: "text name" }, button, element("span", { class: "owner" }, owner));
      if (column.title === "verdict") {
        return element("td", { class: "text verdict" }, badge, element("span", { class: "reason" }, candidate.reason));
      }
      return element("td", {}, known(column.key(candidate), column.text));
    });
    const row = element("tr", { class: candidate === scatter.chosen ? "row chosen" : "row" }, ...cells);
    row.addEventListener("click", () => {
      if (!this.open.delete(candidate)) this.open.add(candidate);
      const hadFocus = document.activeElement === button;
      choose(candidate, false);
      if (hadFocus) candidate.row.querySelector("button").focus();
    });
    candidate.row = row;
    return row;
  }
}

function details(candidate) {
  const { trial } = candidate, list = element("dl");
  const say = (term, ...what) => list.append(element("dt", {}, term), element("dd", {}, ...what));
  const counts = (table) => Object.entries(table).sort((a, b) => b[1] - a[1]).map(([name, n]) => `${name} ${countText(n)}`).join(", ");
  if (candidate.guard) say("guard", element("code", {}, candidate.guard));
  if (candidate.break_even !== null) say("wins from", element("code", {}, candidate.size || "size"), ` = ${countText(candidate.break_even)}`);
  say("in itself", `${percent(candidate.exclusive)} of the samples`);
  if (candidate.calls !== null) {
    say("calls", `${countText(candidate.calls)} in ${secondsText(candidate.watched_s)}, by ${candidate.threads} thread${candidate.threads === 1 ? "" : "s"}`);
  }
  if (candidate.latency_ns.some((n) => n)) say("a call took", histogram(candidate.latency_ns));
  if (Object.keys(candidate.callers).length) say("called by", counts(candidate.callers));
  if (trial) {
    say("tried", `${trial.calls} calls: ${countText(trial.pages_read)} pages touched, ${countText(trial.pages_written)} written, ` +
      `${secondsText(trial.in_mirror_s)} in the mirror and ${secondsText(trial.way_s)} on the way, ` +
      `${trial.threads} thread${trial.threads === 1 ? "" : "s"} along`);
    say("system calls", counts(trial.syscalls) || "none");
    say("results", trial.equal === null ? "could not be compared" : trial.equal ? "equal to the program's own" : `differ: ${trial.difference}`);
  }
  if (candidate.signature) say("signature", element("code", {}, candidate.signature));
  const seek = element("button", { type: "button" }, "find in the call tree");
  seek.addEventListener("click", () => {
    $("search").value = candidate.name;
    flame.seek(candidate.name);
    $("flame-title").scrollIntoView({ block: "start" });
  });
  say("", seek);
  return element("tr", { class: "details" }, element("td", { colspan: COLUMNS.length }, list));
}

// One bar for each power of two of nanoseconds.
function histogram(counts) {
  const first = counts.findIndex((n) => n), last = counts.findLastIndex((n) => n);
  const bars = counts.slice(first, last + 1), most = Math.max(...bars), bar = 14, tall = 34;
  const svg = drawn("svg", { class: "histogram", width: Math.max(bars.length * bar, 110), height: tall + 14, role: "img",
    "aria-label": `from ${secondsText(2 ** first / 1e9)} to ${secondsText(2 ** (last + 1) / 1e9)}` });
  bars.forEach((n, i) => {
    const high = n ? Math.max(1, tall * n / most) : 0;
    const rect = drawn("rect", { x: i * bar, y: tall - high, width: bar - 2, height: high });
    rect.append(drawn("title", {}, `${n} calls of ${secondsText(2 ** (first + i) / 1e9)} to ${secondsText(2 ** (first + i + 1) / 1e9)}`));
    svg.append(rect);
  });
  svg.append(drawn("text", { x: 0, y: tall + 12 }, `${secondsText(2 ** first / 1e9)} to ${secondsText(2 ** (last + 1) / 1e9)}`));
  return svg;
}

// --- all of it ------------------------------------------------------------------------------------------------------

// One function is looked at: in the scatter and in the table.
function choose(candidate, andShow) {
  scatter.chosen = candidate;
  if (andShow) table.open.add(candidate);
  scatter.draw();
  table.draw();
  if (andShow) candidate.row.scrollIntoView({ block: "nearest" });
}

const flame = new Flame($("flame"), found.tree);
const scatter = new Scatter($("scatter"));
const table = new Table($("table"));

drawHeader();
table.draw();
$("search").addEventListener("input", () => flame.seek($("search").value));
$("reset").addEventListener("click", () => flame.zoom(flame.root));
$("measure").addEventListener("change", (event) => { scatter.measure = MEASURES[event.target.value]; scatter.draw(); });
let drawnFor = 0;
new ResizeObserver(() => {
  if (drawnFor === document.body.clientWidth) return;
  drawnFor = document.body.clientWidth;
  flame.draw();
  scatter.draw();
}).observe(document.body);
