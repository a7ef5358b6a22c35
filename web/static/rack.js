// Home: each switch's face, a square for each port; new Pis on top. Only what changed is drawn anew.
import { ago, api, attempt, badge, h, live, may, mood, page, picture, ring, show, timeline, toast } from "./app.js";

const squares = new Map(); // key of a port -> its element and what is drawn in it
const numbers = h("ul", { class: "numbers" });
const fresh = h("div");
const faces = h("div");
const rest = h("div");
const events = h("section", { class: "card" });
let shape = "";

live((shown, what) => {
  if (!shown.ready) return;
  if (!numbers.isConnected) show(numbers, fresh, faces, rest, events);
  const now = JSON.stringify(shown.rack.switches.map((each) => [each.index, each.name, each.ports.length]));
  if (now !== shape) { shape = now; drawFaces(); }
  drawNumbers();
  drawStrangers();
  for (const each of shown.rack.switches) for (const port of each.ports) fill(each, port);
  drawRest();
  if (!what || what.events) events.replaceChildren(h("h2", {}, "What happened last"), timeline(shown.events.slice(-12)));
});

function all() { return Object.values(picture.pis); }

function drawNumbers() {
  const known = all().filter((pi) => pi.known);
  const count = (kind) => known.filter((pi) => mood(pi)[0] === kind).length;
  const watts = picture.rack.switches.flatMap((each) => each.ports).reduce((sum, port) => sum + (port.watts || 0), 0);
  const item = (number, word) => h("li", {}, h("b", {}, String(number)), word);
  numbers.replaceChildren(item(known.length, "Pis"), item(count("ok"), "up"), item(count("busy"), "on their way"), item(count("warning") + count("error"), "in trouble"), ...(watts ? [item(watts.toFixed(0), "W")] : []));
  if (picture.rack.server_runs === false) numbers.append(h("li", { class: "problem" }, "no server runs: this is what was known when it stopped"));
}

function drawStrangers() {
  const strangers = all().filter((pi) => !pi.known && pi.waiting);
  const key = strangers.map((pi) => pi.mac + pi.model + pi.heard_at).join();
  if (fresh.dataset.key === key) return;
  fresh.dataset.key = key;
  if (!strangers.length) { fresh.replaceChildren(); return; }
  fresh.replaceChildren(h("section", { class: "card" }, h("h2", {}, strangers.length === 1 ? "A new Pi asks to be let in" : `${strangers.length} new Pis ask to be let in`),
    h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, strangers.map((pi) => {
      const name = h("input", { "aria-label": `Name of ${pi.mac}`, placeholder: "its name", autocomplete: "off", size: 14 });
      const adopt = h("button", { class: "main", onclick: attempt(async () => {
        const [host] = await api("POST", "/adopt", { pis: [{ mac: pi.mac, ...(name.value.trim() ? { name: name.value.trim() } : {}) }] });
        toast(`${host.mac} is ${host.name} now, with ${host.address}`);
      }) }, "Adopt");
      return h("tr", {}, h("td", { class: "mono" }, h("a", { href: `/pi/${pi.mac}` }, pi.mac)), h("td", {}, [pi.vendor, pi.model, pi.serial && `serial ${pi.serial}`].filter(Boolean).join(", ")), h("td", { class: "muted" }, ago(pi.heard_at)), may("operate") ? [h("td", {}, name), h("td", {}, adopt)] : null);
    }))))));
}

function drawFaces() {
  squares.clear();
  faces.replaceChildren(...picture.rack.switches.map((each) => {
    const face = h("div", { class: "face", role: "group", "aria-label": `Ports of ${each.name}` }, each.ports.map((port) => {
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
  const drawn = JSON.stringify([port, pi && [pi.name, pi.stage, pi.health, pi.percent, pi.up, pi.ordered, pi.trouble]]);
  if (!slot || slot.drawn === drawn) return;
  slot.drawn = drawn;
  const [kind, word] = pi ? mood(pi) : ["empty", port.address ? "no Pi with this address" : ""];
  const off = port.poe === "off";
  slot.square.className = `port is-${kind}${off ? " is-off" : ""}`;
  if (pi) slot.square.href = `/pi/${pi.mac}`; else slot.square.removeAttribute("href");
  const name = pi ? pi.name : port.address || "";
  const said = off ? "off" : pi && pi.ordered && kind !== "busy" ? "reinstall ordered" : word;
  slot.square.title = pi ? `${pi.name}: ${pi.trouble || said}` : `port ${port.port}`;
  slot.square.setAttribute("aria-label", `Port ${port.port}: ${name || "empty"}${said ? `, ${said}` : ""}${pi && pi.percent !== null ? `, ${Math.round(pi.percent)} percent` : ""}`);
  slot.square.replaceChildren(
    h("span", { class: "top" }, h("span", {}, port.label || String(port.port)), port.protected ? h("span", { title: "protected: never switched off" }, "fixed") : h("span", {}, port.link === false ? "no link" : "")),
    h("span", { class: "who" }, name), h("span", { class: "what" }, said),
    h("span", { class: "foot" }, port.watts !== null && port.watts !== undefined ? `${port.watts.toFixed(1)} W` : "", pi && pi.values.temperature !== undefined && kind === "ok" ? ` ${Math.round(pi.values.temperature)} °C` : ""),
    ...(pi && pi.percent !== null && kind === "busy" ? [ring(pi.percent)] : []));
}

function drawRest() {
  const placed = new Set(picture.rack.switches.flatMap((each) => each.ports.map((port) => port.mac)));
  const others = all().filter((pi) => pi.known && !placed.has(pi.mac));
  const key = JSON.stringify(others.map((pi) => [pi.mac, pi.name, mood(pi)]));
  if (rest.dataset.key === key) return;
  rest.dataset.key = key;
  rest.replaceChildren(...(others.length ? [h("section", { class: "card" }, h("h2", {}, "On no port of config.yaml"), h("p", { class: "bar" }, others.map((pi) => h("a", { class: "button", href: `/pi/${pi.mac}` }, pi.name, " ", badge(pi)))))] : []));
}
