// What all pages share: elements without HTML text, the API, the event stream, words for numbers. No page's own matter.

export const role = document.querySelector('meta[name="role"]')?.content || "";
const csrf = document.querySelector('meta[name="csrf-token"]')?.content || "";
export const may = (wanted) => ["read", "operate", "admin"].indexOf(role) >= ["read", "operate", "admin"].indexOf(wanted);

/** An element: attributes, `on...` listeners, children as text or elements. Text never becomes HTML. */
export function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "circle", "path", "rect", "g", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else if (name === "checked") node.checked = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Put children in the place of what an element holds; those that are nothing are left out. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Let an element hold these children in this order, and touch only what is not so: what has the focus keeps it. */
export function keep(parent, nodes) {
  const held = document.activeElement;
  const wanted = new Set(nodes);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  let at = parent.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling; else parent.insertBefore(node, at);
  }
  if (held !== document.activeElement && held?.isConnected) held.focus({ preventScroll: true });
}

/** The children of an element, each under a key: made when it is new or says something else, and else left alone. */
export class Kept {
  constructor(parent) { this.parent = parent; this.held = new Map(); }

  /** `entries` are {key, said, make}. */
  draw(entries) {
    const next = new Map();
    let lost = null; // the new node of one that had the focus
    for (const { key, said, make } of entries) {
      const old = this.held.get(key);
      if (old?.said === said) { next.set(key, old); continue; }
      const made = { said, node: make() };
      if (old?.node.contains(document.activeElement)) lost = made.node;
      next.set(key, made);
    }
    this.held = next;
    keep(this.parent, [...next.values()].map(({ node }) => node));
    if (lost) (lost.matches("a, button") ? lost : lost.querySelector("a, button, input"))?.focus({ preventScroll: true });
  }
}

export const page = document.getElementById("page");
export function show(...children) {
  page.removeAttribute("aria-busy");
  put(page, ...children);
}

export class ApiError extends Error {
  constructor(status, answer) {
    super(answer.error || `the manager answered ${status}`);
    this.status = status;
    this.problems = answer.problems || [];
  }
}

/** Ask the API; throws ApiError with a sentence. */
export async function api(method, path, body) {
  const headers = { Accept: "application/json", "X-CSRF-Token": csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError(0, { error: "the manager does not answer" });
  }
  if (response.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, answer);
  return answer;
}

export function toast(text, bad = false) {
  const node = h("div", { class: bad ? "toast bad" : "toast" }, text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), bad ? 12000 : 5000);
}

/** Run what a button starts; an error is told. */
export function attempt(work) {
  return async (event) => {
    const button = event?.currentTarget;
    if (button instanceof HTMLButtonElement) button.disabled = true;
    try { await work(event); } catch (error) { toast(error.message, true); if (!(error instanceof ApiError)) throw error; }
    finally { if (button instanceof HTMLButtonElement) button.disabled = false; }
  };
}

// ------------------------------------------------------------------------------------------------------- the stream

/** The picture of the rack, kept up to date; `changed(picture, what)` is called at each news, `what` the delta or null. */
export const picture = { pis: {}, rack: { switches: [] }, events: [], jobs: {}, alerts: [], skew: 0, ready: false };
const listeners = [];
let source = null;
let polling = 0;
let patience = 3000; // milliseconds; grows while nobody answers
let polled = false; // since there was a stream
let lastUpdate = 0;

export function live(changed) {
  listeners.push(changed);
  if (picture.ready) changed(picture, null);
  if (listeners.length > 1) return;
  connect();
  // A hidden tab gives its connection back: a browser has six for one host.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
}

function tell(what) {
  const count = document.getElementById("alert-count");
  const firing = picture.alerts.filter((each) => each.state === "firing").length;
  if (count) { count.hidden = !firing; count.textContent = firing; count.setAttribute("aria-label", `${firing} ${firing === 1 ? "alert" : "alerts"}`); }
  for (const listener of listeners) listener(picture, what);
}

function take(data, whole) {
  picture.skew = data.now - Date.now() / 1000;
  lastUpdate = data.now;
  patience = 3000;
  if (whole) Object.assign(picture, data, { ready: true });
  else {
    for (const part of ["rack", "jobs", "alerts"]) if (part in data) picture[part] = data[part];
    Object.assign(picture.pis, data.pis || {});
    for (const mac of data.removed || []) delete picture.pis[mac];
    picture.events = [...picture.events, ...(data.events || [])].slice(-300);
  }
  tell(whole ? null : data);
}

function connect() {
  if (source || polling) return;
  source = new EventSource("/events");
  source.addEventListener("snapshot", (event) => { state("live"); take(JSON.parse(event.data), true); });
  source.addEventListener("delta", (event) => { state("live"); take(JSON.parse(event.data), false); });
  source.addEventListener("open", () => { polled = false; state("live"); });
  source.addEventListener("error", () => {
    state(`the manager does not answer${picture.ready ? `; last update ${clock(lastUpdate)}` : ""}`, true);
    if (source && source.readyState === EventSource.CLOSED) { disconnect(); polling = setTimeout(poll, polled ? patience : 300); patience = Math.min(patience * 1.5, 30000); }
  });
}

function disconnect() {
  source?.close();
  source = null;
}

async function poll() { // too many pages watch, or the log-in is over
  polling = 0;
  polled = true;
  try { take(await api("GET", "/picture"), true); state("looks now and then"); } catch (error) { state(error.message, true); }
  if (!document.hidden) connect();
}

function state(text, lost = false) {
  const node = document.getElementById("connection");
  node.textContent = lost ? text : text === "live" ? "● live" : text;
  node.classList.toggle("lost", lost);
}

export const now = () => Date.now() / 1000 + picture.skew;

// ---------------------------------------------------------------------------------------------------------- words

export function ago(when) {
  if (!when) return "never";
  const seconds = Math.max(0, now() - when);
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit} ago`;
  return `${Math.round(seconds)} s ago`;
}

export function span(seconds) {
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} d`;
}

const two = (number) => String(number).padStart(2, "0");
/** 03:39:27, with the date before it where it is not today. */
export function clock(when) {
  const at = new Date(when * 1000);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date().toDateString() ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

const suffixes = { percent: " %", celsius: " °C", milliseconds: " ms", watts: " W" };
const named = { cpu_percent: "processor", memory_percent: "memory", disk_percent: "disk", num_pids: "processes", load1: "load", ping_ms: "ping", watts: "power", clock_offset: "clock offset", card_errors: "card errors" };
export const title = (name) => named[name] || name.replaceAll("_", " ");

/** A value with its unit, for people. */
export function measure(value, unit) {
  if (unit === "bool") return value ? "yes" : "no";
  if (unit === "seconds") return Math.abs(value) < 1 ? `${(value * 1000).toFixed(1)} ms` : span(value);
  return `${Number(value.toFixed(2))}${suffixes[unit] || ""}`;
}
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** How a Pi is: a class for its colour, and a word. */
export function mood(pi) {
  if (!pi) return ["empty", ""];
  if (pi.health === "error") return ["error", "failed"];
  if (pi.health === "warning") return ["warning", pi.stage ? `stuck: ${pi.stage}` : "trouble"];
  if (pi.up === false && pi.stage === "up") return ["error", "down"];
  if (!pi.stage) return ["empty", pi.known ? "never heard" : pi.waiting ? "waits" : "unknown"];
  if (pi.stage === "up") return ["ok", "up"];
  return ["busy", pi.stage];
}

export function badge(pi) {
  const [kind, word] = mood(pi);
  return h("span", { class: `badge ${kind}` }, word || "-");
}

/** A ring that fills while something is transferred. */
export function ring(percent) {
  const length = 2 * Math.PI * 14;
  const done = h("circle", { class: "done", cx: 18, cy: 18, r: 14, "stroke-dasharray": length, "stroke-dashoffset": length * (1 - percent / 100) });
  return h("svg", { class: "ring", viewBox: "0 0 36 36", role: "img", "aria-label": `${Math.round(percent)} percent` }, h("circle", { cx: 18, cy: 18, r: 14 }), done);
}

export function place(pi) {
  if (pi.switch === null || pi.switch === undefined) return "";
  const found = picture.rack.switches.find((each) => each.index === pi.switch);
  const label = found?.ports.find((each) => each.port === pi.port)?.label;
  return `${found ? found.name : pi.switch} / ${label || pi.port}`;
}

/** Events, the newest first, in an element that stays: who scrolls in it, or has the focus there, is not disturbed. */
export class Timeline {
  constructor(withNames = true) {
    this.withNames = withNames;
    this.node = h("ol", { class: withNames ? "timeline" : "timeline own", tabindex: "0", "aria-label": "Events, the newest first" });
    this.kept = new Kept(this.node);
  }

  draw(events) {
    let before = 0;
    this.kept.draw(events.map((each) => {
      const gap = !this.withNames && before && each.when - before < 3600 ? `+${span(each.when - before)}` : "";
      before = each.when;
      return { key: each.id, said: `${gap} ${each.name}`, make: () => this.line(each, gap) };
    }).reverse());
  }

  line(each, gap) {
    const who = this.withNames ? h("a", { href: each.mac ? `/pi/${each.mac}` : "/log" }, each.name || each.mac || "manager") : h("span", { class: "muted" }, gap);
    return h("li", {}, h("time", { datetime: new Date(each.when * 1000).toISOString() }, clock(each.when)), who, h("span", { class: each.severity === "info" ? "" : each.severity }, each.text));
  }
}

/** A button that saves events as a file of lines. */
export function save(events, name) {
  return h("button", { type: "button", class: "push", onclick: () => {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const lines = events().map((each) => [new Date(each.when * 1000).toISOString(), each.mac, each.name, each.severity, each.text].map(quoted).join(","));
    const address = URL.createObjectURL(new Blob([["time,mac,name,severity,text", ...lines, ""].join("\n")], { type: "text/csv" }));
    h("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  } }, "Download");
}

export function diff(text) {
  const lines = text.split("\n").map((line) => h("span", { class: line.startsWith("@@") || line.startsWith("---") || line.startsWith("+++") ? "at" : line.startsWith("+") ? "plus" : line.startsWith("-") ? "minus" : "" }, `${line}\n`));
  return h("pre", { class: "diff", tabindex: "0" }, lines);
}

// --------------------------------------------------------------------------------------------------------- orders

/** Ask before something that cannot be undone; `typed` has to be typed. Resolves to true or false. */
export function ask(title, text, action, typed = "") {
  return new Promise((resolve) => {
    const input = typed ? h("input", { id: "typed", autocomplete: "off", spellcheck: "false" }) : null;
    const go = h("button", { class: "main danger", value: "go", type: "submit", disabled: Boolean(typed) }, action);
    input?.addEventListener("input", () => { go.disabled = input.value.trim() !== typed; });
    const dialog = h("dialog", { "aria-labelledby": "asked" },
      h("form", { method: "dialog" }, h("h2", { id: "asked" }, title), h("p", {}, text),
        typed ? [h("label", { for: "typed" }, `Type ${typed} to go on`), input] : null,
        h("div", { class: "bar" }, go, h("button", { value: "no", type: "submit", formnovalidate: true }, "Cancel"))));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "go"); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const watched = new Set();
live((shown) => {
  for (const id of watched) {
    const job = shown.jobs[id];
    if (!job || job.state === "running") continue;
    watched.delete(id);
    const bad = job.results.filter((each) => !each.ok).map((each) => `${each.target}: ${each.text}`).join("; ") || job.error;
    toast(bad ? `${job.kind}: ${bad}` : `${job.kind} of ${job.targets.join(", ")}: done`, Boolean(bad));
  }
});

async function order(path, body) {
  const job = await api("POST", path, body);
  watched.add(job.id);
  toast(`${job.kind} of ${job.targets.join(", ")} …`);
}

/** The buttons for some Pis; `chosen()` gives their rows. */
export function actions(chosen) {
  if (!may("operate")) return [];
  const targets = () => chosen().map((pi) => pi.mac);
  const named = () => (chosen().length === 1 ? chosen()[0].name || chosen()[0].mac : `${chosen().length} Pis`);
  const word = () => (chosen().length === 1 ? chosen()[0].name || chosen()[0].mac : String(chosen().length));
  const button = (text, work, kind = "") => h("button", { type: "button", class: kind, onclick: attempt(async () => { if (chosen().length) await work(); else toast("choose some Pis first: by the boxes before their names"); }) }, text);
  return [
    button("Restart", async () => { if (await ask(`Restart ${named()}?`, "Its power is cut for some seconds.", "Restart")) await order("/restart", { targets: targets() }); }),
    button("Reinstall", async () => { if (await ask(`Erase and reinstall ${named()}?`, "The SD card is formatted and the image installed anew. What is on the card is lost.", "Erase and reinstall", word())) await order("/reinstall", { targets: targets(), confirm: targets().length }); }, "danger"),
    button("Power off", async () => { if (await ask(`Turn ${named()} off?`, "The port stays off until somebody turns it on.", "Power off", chosen().length > 1 ? word() : "")) await order("/power", { targets: targets(), state: "off", confirm: targets().length }); }),
    button("Power on", () => order("/power", { targets: targets(), state: "on" })),
    button("Identify", async () => { if (await ask(`Let the port of ${named()} blink?`, "Its power goes off and on three times, which the lamp at the switch shows. The Pi restarts.", "Blink")) await order("/identify", { targets: targets(), confirm: targets().length }); }),
  ];
}
