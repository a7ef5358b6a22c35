// Home: each switch's face, a square for each port; new Pis on top. Only what changed is drawn anew.
import { api, ask, attempt, badge, clock, h, Kept, live, may, mood, picture, place, ring, show, Timeline, toast } from "./app.js";

const squares = new Map(); // key of a port -> its element and what is drawn in it
const strangers = new Map(); // MAC of a Pi that waits -> its row, and the part of it that changes
const numbers = h("ul", { class: "numbers" });
const sums = new Kept(numbers);
const fresh = h("div");
const nobody = h("section", { class: "card", hidden: true }, h("h2", {}, "No Pi is known yet"), h("p", {}, "Plug one into a port of a switch: it asks to be let in, here, some seconds after it has power. ", may("admin") ? ["Or write all of them into ", h("a", { href: "/hosts" }, "HOSTS.CSV"), "."] : null));
const lines = h("div");
const worst = new Kept(lines);
const more = h("a", { href: "/alerts" });
const wrong = h("section", { class: "card", "aria-label": "Open alerts", hidden: true }, lines, more);
const faces = h("div");
const others = h("p", { class: "bar" });
const unplaced = new Kept(others);
const rest = h("section", { class: "card", hidden: true }, h("h2", {}, "On no port of config.yaml"), others);
const recent = new Timeline();
const events = h("section", { class: "card" }, h("div", { class: "bar" }, h("h2", {}, "What happened last"), h("a", { class: "push", href: "/log" }, "All events")), recent.node);
let shape = "";

live((shown, what) => {
  if (!shown.ready) return;
  if (!numbers.isConnected) show(numbers, nobody, fresh, wrong, faces, rest, events);
  const now = JSON.stringify(shown.rack.switches.map((each) => [each.index, each.name, each.ports.length]));
  const held = faces.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const drawnAnew = now !== shape;
  if (drawnAnew) { shape = now; drawFaces(); }
  drawNumbers();
  drawStrangers();
  for (const each of shown.rack.switches) for (const port of each.ports) fill(each, port);
  for (const face of faces.querySelectorAll(".face")) if (!face.querySelector('.port[href][tabindex="0"]')) settleFocus(face, face.querySelector(".port[href]"));
  if (held && drawnAnew) faces.querySelector(`.port[href="${held}"]`)?.focus({ preventScroll: true });
  drawRest();
  drawAlerts();
  if (!what || what.events) recent.draw(shown.events.slice(-12));
});

function all() { return Object.values(picture.pis); }

function drawNumbers() {
  const known = all().filter((pi) => pi.known);
  const count = (...kinds) => known.filter((pi) => kinds.includes(mood(pi)[0])).length;
  const watts = picture.rack.switches.flatMap((each) => each.ports).reduce((sum, port) => sum + (port.watts || 0), 0);
  const item = (number, word, filter) => ({ key: word, said: String(number), make: () => h("li", {}, filter === undefined ? h("span", {}, h("b", {}, String(number)), word) : h("a", { href: `/pis${filter}` }, h("b", {}, String(number)), word)) });
  sums.draw([item(known.length, "Pis", ""), item(count("ok"), "up", "#ok"), item(count("busy"), "on their way", "#busy"), item(count("warning", "error"), "in trouble", "#bad"), ...(watts ? [item(watts.toFixed(0), "W")] : []),
    ...(picture.rack.server_runs === false ? [{ key: "stopped", said: "", make: () => h("li", { class: "problem" }, "no manager runs: this is what was known when it stopped ", may("admin") ? h("a", { href: "/wizard" }, "Start it") : null) }] : [])]);
}

/** A row stays the same element as long as its Pi waits, so that no update takes the focus, or a letter, from somebody who types. */
function drawStrangers() {
  const waiting = all().filter((pi) => !pi.known && pi.waiting);
  let held = false; // a row that goes had the focus: the next one gets it
  for (const [mac, row] of strangers) if (!waiting.some((pi) => pi.mac === mac)) { held ||= row.line.contains(document.activeElement); row.line.remove(); strangers.delete(mac); }
  nobody.hidden = waiting.length > 0 || all().some((pi) => pi.known) || !picture.rack.switches.length;
  if (!waiting.length) { fresh.replaceChildren(); return; }
  if (!fresh.firstChild) fresh.append(h("section", { class: "card" }, h("div", { class: "bar" }, h("h2", {}), may("operate") ? together : null), h("ul", { class: "strangers" })));
  together.hidden = waiting.length < 2;
  const list = fresh.querySelector(".strangers");
  for (const pi of waiting) {
    if (!strangers.has(pi.mac)) {
      strangers.set(pi.mac, stranger(pi.mac));
      list.append(strangers.get(pi.mac).line);
    }
    const { facts, drawn } = strangers.get(pi.mac);
    const words = [[pi.vendor, pi.model, pi.serial && `serial ${pi.serial}`].filter(Boolean).join(", "), at(pi), `asked at ${clock(pi.heard_at)}`];
    if (drawn === words.join("\n")) continue;
    strangers.get(pi.mac).drawn = words.join("\n");
    facts.replaceChildren(h("span", {}, words[0]), words[1] ? h("span", {}, words[1]) : "", h("span", { class: "muted" }, words[2]));
  }
  if (held) list.querySelector("input")?.focus();
  const title = waiting.length === 1 ? "A new Pi asks to be let in" : `${waiting.length} new Pis ask to be let in`;
  const heading = fresh.querySelector("h2");
  if (heading.textContent !== title) heading.textContent = title;
}

const beginning = h("input", { "aria-label": "How their names begin", placeholder: "pi", autocomplete: "off", size: 6 });
/** All that wait at once: in the order of their ports, with the names that were typed, else with a number each. */
const together = h("span", { class: "pair push" }, h("span", { class: "muted" }, "all of them, called"), beginning, h("button", { onclick: attempt(async () => {
  const waiting = all().filter((pi) => !pi.known && pi.waiting).sort((a, b) => (a.switch ?? 999) - (b.switch ?? 999) || (a.port ?? 999) - (b.port ?? 999) || a.mac.localeCompare(b.mac));
  const taken = new Set(all().map((pi) => pi.name.toLowerCase()));
  const word = beginning.value.trim() || "pi";
  let number = 0;
  const free = () => { do number += 1; while (taken.has(`${word}${number}`.toLowerCase())); return `${word}${number}`; };
  const pis = waiting.map((pi) => ({ mac: pi.mac, name: strangers.get(pi.mac).name.value.trim() || free() }));
  if (!(await ask(`Let ${pis.length} Pis in?`, `They are called ${pis.map((each) => each.name).join(", ")}, in the order of their ports, and get the addresses of these. What has an empty card is installed.`, "Adopt them"))) return;
  const done = await api("POST", "/adopt", { pis });
  toast(`${done.length} Pis are in hosts.csv now`);
}) }, "Adopt all"));

/** Where a Pi is plugged in, as far as the switches have told. */
function at(pi) {
  if (pi.switch === null) return "";
  return picture.rack.switches.length > 1 ? `${place(pi).replace(" / ", " port ")}` : `switch port ${place(pi).split(" / ").at(-1)}`;
}

function stranger(mac) {
  const name = h("input", { "aria-label": `Name of ${mac}`, placeholder: "its name", autocomplete: "off", size: 14, onkeydown: (event) => { if (event.key === "Enter") adopt.click(); } });
  const adopt = h("button", { class: "main", onclick: attempt(async () => {
    const [host] = await api("POST", "/adopt", { pis: [{ mac, ...(name.value.trim() ? { name: name.value.trim() } : {}) }] });
    toast(`${host.mac} is ${host.name} now, with ${host.address}`);
  }) }, "Adopt");
  const facts = h("span", { class: "about" });
  return { name, line: h("li", {}, h("a", { class: "mono", href: `/pi/${mac}` }, mac), facts, may("operate") ? h("span", { class: "push" }, name, adopt) : null), facts, drawn: "" };
}

function drawAlerts() {
  const firing = picture.alerts.filter((each) => each.state === "firing").sort((a, b) => (b.severity === "critical") - (a.severity === "critical") || a.since - b.since);
  wrong.hidden = !firing.length;
  worst.draw(firing.slice(0, 5).map((each) => ({ key: each.id, said: each.text, make: () => h("div", { class: "alert-line" }, h("span", { class: `badge ${each.severity}` }, each.severity), each.subject in picture.pis ? h("a", { href: `/pi/${each.subject}` }, each.name || each.subject) : h("b", {}, each.name || each.subject), h("span", {}, each.text), h("span", { class: "muted" }, `since ${clock(each.since)}`)) })));
  const said = firing.length > 5 ? `All ${firing.length} alerts` : "Say that you know, or silence them";
  if (more.textContent !== said) more.textContent = said;
}

function roam(event) {
  const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (!step) return;
  const from = event.target.closest(".port")?.getBoundingClientRect();
  if (!from) return;
  let best = null;
  let least = Infinity;
  for (const each of event.currentTarget.querySelectorAll(".port[href]")) {
    const at = each.getBoundingClientRect();
    const along = (at.x - from.x) * step[0] + (at.y - from.y) * step[1];
    const aside = Math.abs((at.x - from.x) * step[1]) + Math.abs((at.y - from.y) * step[0]);
    if (along > 1 && along + 3 * aside < least) [best, least] = [each, along + 3 * aside];
  }
  if (best) { event.preventDefault(); best.focus(); }
}

function settleFocus(face, chosen) {
  for (const each of face.querySelectorAll(".port[href]")) each.tabIndex = each === chosen ? 0 : -1;
}

function drawFaces() {
  squares.clear();
  faces.replaceChildren(...picture.rack.switches.map((each) => {
    const face = h("div", { class: "face", role: "group", "aria-label": `Ports of ${each.name}`, onkeydown: roam, onfocusin: (event) => { const square = event.target.closest(".port"); if (square) settleFocus(event.currentTarget, square); } }, each.ports.map((port) => {
      const square = h("a", { class: "port" });
      squares.set(`${each.index}/${port.port}`, { square, drawn: "" });
      return square;
    }));
    return h("section", { class: "card" }, h("div", { class: "bar" }, h("h2", {}, each.name), h("span", { class: "muted mono" }, each.address)), face);
  }), ...(picture.rack.switches.length ? [] : [h("section", { class: "card" }, h("p", {}, "config.yaml has no switches yet. ", h("a", { href: "/config" }, "Add one")))]));
}

function fill(each, port) {
  const slot = squares.get(`${each.index}/${port.port}`);
  const pi = picture.pis[port.mac];
  const drawn = JSON.stringify([port, pi && [pi.name, pi.stage, pi.health, pi.percent, pi.up, pi.ordered, pi.trouble, Math.round(pi.values.temperature), Math.round(pi.values.cpu_percent)]]);
  if (!slot || slot.drawn === drawn) return;
  slot.drawn = drawn;
  const [kind, word] = pi ? mood(pi) : ["empty", port.address ? "no Pi yet" : ""];
  const off = port.poe === "off";
  slot.square.className = `port is-${kind}${off ? " is-off" : ""}`;
  if (pi) slot.square.href = `/pi/${pi.mac}`; else slot.square.removeAttribute("href");
  const name = pi ? pi.name : port.address || "";
  const said = off ? "off" : pi && pi.ordered && kind !== "busy" ? "reinstall ordered" : word;
  slot.square.title = pi ? `${pi.name}: ${pi.trouble || said}` : `port ${port.port}`;
  if (pi && !slot.square.hasAttribute("tabindex")) slot.square.tabIndex = -1;
  if (!pi) slot.square.removeAttribute("tabindex");
  const values = pi && kind !== "busy" ? pi.values : {};
  const watts = port.watts ?? values.watts;
  const transfers = pi && pi.percent !== null && kind === "busy";
  slot.square.replaceChildren(
    h("span", { class: "top" }, h("span", {}, h("span", { class: "hidden" }, "Port "), port.label || String(port.port)), port.protected ? h("span", { title: "protected: never switched off" }, "fixed") : h("span", {}, port.link === false ? "no link" : "")),
    h("span", { class: "who" }, name), h("span", { class: "what" }, transfers ? `${said} ${Math.round(pi.percent)} %` : said),
    h("span", { class: "foot" }, h("span", {}, watts === null || watts === undefined ? "" : `${watts.toFixed(1)} W `), h("span", { title: "processor" }, values.cpu_percent === undefined ? "" : `${Math.round(values.cpu_percent)}% `), h("span", { title: "temperature" }, values.temperature === undefined ? "" : `${Math.round(values.temperature)}°`)),
    ...(transfers ? [ring(pi.percent)] : []));
}

function drawRest() {
  const placed = new Set(picture.rack.switches.flatMap((each) => each.ports.map((port) => port.mac)));
  const found = all().filter((pi) => pi.known && !placed.has(pi.mac));
  rest.hidden = !found.length;
  unplaced.draw(found.map((pi) => ({ key: pi.mac, said: JSON.stringify([pi.name, mood(pi)]), make: () => h("a", { class: "button", href: `/pi/${pi.mac}` }, pi.name, " ", badge(pi)) })));
}
