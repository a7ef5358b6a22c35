// One Pi: facts, buttons, graphs, its timeline and files in one place.
import { actions, ago, api, attempt, badge, clock, h, live, may, measure, megabytes, mood, now, page, picture, place, put, save, show, span, timeline, title, toast } from "./app.js";

const mac = page.dataset.mac;
const head = h("section", { class: "card" });
const facts = h("section", { class: "card" });
const story = h("section", { class: "card" });
const graphs = h("section", { class: "card" });
const files = h("section", { class: "card" });
const buttons = h("div", { class: "bar" }, actions(() => (picture.pis[mac] && picture.pis[mac].known ? [picture.pis[mac]] : [])));
let events = null;
let metrics = [];

live(async (shown, what) => {
  if (!shown.ready) return;
  const pi = shown.pis[mac];
  if (!pi) { show(h("section", { class: "card" }, h("h1", {}, mac), h("p", {}, "Nobody has heard of this Pi."))); return; }
  if (!head.isConnected) { show(head, h("div", { class: "columns" }, facts, story), graphs, files); load(); }
  if (!what || what.pis?.[mac] || what.jobs || what.rack) draw(pi);
  const news = what?.events?.filter((each) => each.mac === mac) || [];
  if (events && news.length) { events.push(...news); tell(); }
});

function draw(pi) {
  document.title = `${pi.name || mac} · ${picture.rack.title}`;
  const jobs = Object.values(picture.jobs).filter((job) => job.state === "running" && job.targets.some((each) => each.startsWith(`${pi.name} (`)));
  put(head,
    h("div", { class: "bar" }, h("h1", {}, pi.name || mac), badge(pi), pi.percent !== null && mood(pi)[0] === "busy" ? h("span", {}, `${megabytes(pi.done)} of ${megabytes(pi.total)}, ${Math.round(pi.percent)} %`) : null, pi.ordered ? h("span", { class: "badge busy" }, "reinstall ordered") : null,
      pi.ordered && may("operate") ? h("button", { onclick: attempt(async () => { await api("DELETE", `/orders/${mac}`); toast("the order is taken back"); }) }, "Take it back") : null),
    pi.trouble ? h("p", { class: "problem", role: "alert" }, pi.trouble) : null,
    ...jobs.map((job) => h("p", { role: "status" }, `${job.kind}: ${job.steps.at(-1)?.text || "begins"}`)),
    pi.known ? buttons : h("p", {}, "It is not in hosts.csv. ", h("a", { href: "/" }, "Adopt it on the rack's page.")));
  const row = (word, value) => (value ? [h("dt", {}, word), h("dd", {}, value)] : null);
  facts.replaceChildren(h("h2", {}, "Facts"), h("dl", { class: "facts" },
    row("MAC", h("span", { class: "mono" }, mac)), row("Address", pi.address && h("span", { class: "mono" }, pi.address)), row("Switch / port", place(pi)),
    row("Stage", pi.stage && `${pi.stage}, since ${span(Math.max(0, now() - pi.since))}`), row("It said last", pi.heard && `${pi.heard} (${ago(pi.heard_at)})`), row("We sent last", pi.sent && `${pi.sent} (${ago(pi.sent_at)})`),
    row("Works", pi.up === null ? "" : `${pi.up ? "yes" : "no"}: ${pi.evidence}`), Object.entries(pi.facts).map(([key, value]) => row(key === "sd_bytes" ? "SD card" : key.replaceAll("_", " "), key === "sd_bytes" ? `${(Number(value) / 1e9).toFixed(1)} GB` : value)),
    metrics.filter((each) => pi.values[each.name] !== undefined && each.name !== "up").map((each) => row(title(each.name), measure(pi.values[each.name], each.unit)))));
}

const filter = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter the events", oninput: tell });
const list = h("div");
const boot = h("div");
story.append(h("div", { class: "bar" }, h("h2", {}, "Timeline"), filter, save(() => events || [], `${mac.replaceAll(":", "-")}.csv`)), boot, list);

function tell() {
  const word = filter.value.toLowerCase();
  drawBoot();
  list.replaceChildren(timeline(events.filter((each) => each.text.toLowerCase().includes(word)).slice(-300), false));
}

/** The last boot, a bar for each stage: how long it took, and where in the whole. */
function drawBoot() {
  const words = ["discover", "lease", "firmware", "kernel", "hello", "format", "image", "boot", "up"];
  const steps = [];
  for (const each of events) {
    const [word] = each.text.split(/[ :]/);
    if (!words.includes(word) || !(each.text === word || each.text.startsWith(`${word} after`))) continue;
    if (word === "discover") steps.length = 0;
    steps.push([word, each.when]);
  }
  if (steps.length < 2) { boot.replaceChildren(); return; }
  const [first, last] = [steps[0][1], steps.at(-1)[1]];
  const whole = last - first || 1;
  const bars = steps.slice(0, -1).map(([word, when], number) => {
    const took = steps[number + 1][1] - when;
    const bar = h("i");
    bar.style.setProperty("--from", (when - first) / whole);
    bar.style.setProperty("--share", took / whole);
    return h("li", {}, h("span", {}, word), h("span", { class: "track", "aria-hidden": "true" }, bar), h("span", { class: "seconds" }, span(took)));
  });
  boot.replaceChildren(h("h3", {}, `The last boot: ${span(last - first)} to ${steps.at(-1)[0]}`), h("ul", { class: "steps" }, bars));
}

async function load() {
  try {
    [metrics, events] = await Promise.all([api("GET", "/metrics"), api("GET", `/pis/${mac}/events?limit=300`)]);
    tell();
    if (picture.pis[mac]) draw(picture.pis[mac]);
    const fetched = await api("GET", `/pis/${mac}/files?limit=100`);
    if (fetched.length) files.replaceChildren(h("h2", {}, "Files it fetched"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Name", "Size", "Took", "Sent again", "Outcome"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, fetched.reverse().map((each) => h("tr", {}, h("td", { class: "mono" }, each.name), h("td", { class: "number" }, each.size ? megabytes(each.size) : ""), h("td", { class: "number" }, span(each.seconds)), h("td", { class: "number" }, each.resent || ""), h("td", {}, each.outcome)))))));
    else files.remove();
    drawGraphs();
    setInterval(() => { if (!document.hidden && !graphs.querySelector("details[open], :hover")) drawGraphs(); }, 30000);
  } catch (error) { toast(error.message, true); }
}

const since = h("select", { "aria-label": "Over how long", onchange: () => drawGraphs() }, [[3600, "an hour"], [86400, "a day"], [604800, "a week"], [2592000, "a month"]].map(([value, word]) => h("option", { value }, word)));

async function drawGraphs() {
  const known = picture.pis[mac]?.values || {};
  const wanted = metrics.filter((each) => known[each.name] !== undefined && each.kind !== "flag").slice(0, 9);
  if (!wanted.length) { graphs.replaceChildren(h("h2", {}, "Graphs"), h("p", { class: "muted" }, "Nothing was measured yet.")); return; }
  const until = Math.floor(now());
  const found = await Promise.all(wanted.map((each) => api("GET", `/pis/${mac}/samples?metric=${each.name}&since=${until - Number(since.value)}&until=${until}&points=200`)));
  graphs.replaceChildren(h("div", { class: "bar" }, h("h2", {}, "Graphs"), since), h("div", { class: "graphs" }, found.map((each, number) => h("div", {}, h("h3", {}, h("span", {}, title(wanted[number].name)), h("span", { class: "muted" }, each.points.length ? measure(each.points.at(-1)[1], each.unit) : "")), graph(each.points, until - Number(since.value), until, each.unit)))));
}

function graph(points, from, to, unit) {
  const low = Math.min(...points.map((each) => each[2]), Infinity);
  const high = Math.max(...points.map((each) => each[3]), -Infinity);
  const room = (high - low || 1) * 0.1;
  const x = (when) => (((when - from) / (to - from)) * 400).toFixed(1);
  const y = (value) => (100 - ((value - low + room) / (high - low + 2 * room || 1)) * 100).toFixed(1);
  const line = points.map((each, number) => `${number ? "L" : "M"}${x(each[0])} ${y(each[1])}`).join("");
  const range = points.length ? `M${points.map((each) => `${x(each[0])} ${y(each[3])}`).join("L")}L${[...points].reverse().map((each) => `${x(each[0])} ${y(each[2])}`).join("L")}Z` : "";
  const drawn = h("svg", { class: "graph", viewBox: "0 0 400 100", preserveAspectRatio: "none", role: "img", "aria-label": points.length ? `from ${measure(low, unit)} to ${measure(high, unit)}` : "no data" }, h("path", { class: "range", d: range }), h("path", { d: line }));
  const hand = h("path", { class: "at" });
  const said = h("output");
  drawn.append(hand);
  drawn.addEventListener("pointermove", (event) => {
    const box = drawn.getBoundingClientRect();
    const when = from + ((event.clientX - box.x) / box.width) * (to - from);
    const near = points.reduce((best, each) => (Math.abs(each[0] - when) < Math.abs(best[0] - when) ? each : best), points[0]);
    if (!near) return;
    hand.setAttribute("d", `M${x(near[0])} 0V100`);
    said.textContent = `${clock(near[0])}  ${measure(near[1], unit)}`;
  });
  drawn.addEventListener("pointerleave", () => { hand.setAttribute("d", ""); said.textContent = ""; });
  const rows = points.filter((_each, number) => number % Math.ceil(points.length / 25) === 0);
  return h("div", { class: "graph-box" }, drawn, said, points.length ? h("div", { class: "ends" }, h("span", {}, `low ${measure(low, unit)}`), h("span", {}, `high ${measure(high, unit)}`)) : null,
    h("details", {}, h("summary", { class: "help" }, "as a table"), h("table", {}, h("tbody", {}, rows.map((each) => h("tr", {}, h("td", { class: "once" }, clock(each[0])), h("td", { class: "number" }, measure(each[1], unit))))))));
}
