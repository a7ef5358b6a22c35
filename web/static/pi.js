// One Pi: facts, buttons, graphs, its timeline and files in one place.
import { actions, ago, api, attempt, badge, h, live, megabytes, now, page, picture, place, put, show, span, timeline, toast, may } from "./app.js";

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
    h("div", { class: "bar" }, h("h1", {}, pi.name || mac), badge(pi), pi.percent !== null ? h("span", {}, `${megabytes(pi.done)} of ${megabytes(pi.total)}, ${Math.round(pi.percent)} %`) : null, pi.ordered ? h("span", { class: "badge busy" }, "reinstall ordered") : null,
      pi.ordered && may("operate") ? h("button", { onclick: attempt(async () => { await api("DELETE", `/orders/${mac}`); toast("the order is taken back"); }) }, "Take it back") : null),
    pi.trouble ? h("p", { class: "problem", role: "alert" }, pi.trouble) : null,
    ...jobs.map((job) => h("p", { role: "status" }, `${job.kind}: ${job.steps.at(-1)?.text || "begins"}`)),
    pi.known ? buttons : h("p", {}, "It is not in hosts.csv. ", h("a", { href: "/" }, "Adopt it on the rack's page.")));
  const row = (word, value) => (value ? [h("dt", {}, word), h("dd", {}, value)] : null);
  facts.replaceChildren(h("h2", {}, "Facts"), h("dl", { class: "facts" },
    row("MAC", h("span", { class: "mono" }, mac)), row("Address", pi.address && h("span", { class: "mono" }, pi.address)), row("Switch / port", place(pi)),
    row("Stage", pi.stage && `${pi.stage}, since ${span(Math.max(0, now() - pi.since))}`), row("It said last", pi.heard && `${pi.heard} (${ago(pi.heard_at)})`), row("We sent last", pi.sent && `${pi.sent} (${ago(pi.sent_at)})`),
    row("Works", pi.up === null ? "" : `${pi.up ? "yes" : "no"}: ${pi.evidence}`), Object.entries(pi.facts).map(([key, value]) => row(key, key === "sd_bytes" ? megabytes(Number(value)) : value)),
    metrics.filter((each) => pi.values[each.name] !== undefined && each.name !== "up").map((each) => row(each.name.replaceAll("_", " "), `${Number(pi.values[each.name].toFixed(2))} ${each.unit === "bool" || each.unit === "count" ? "" : each.unit}`))));
}

function tell() { story.replaceChildren(h("h2", {}, "Timeline"), timeline(events.slice(-300), false)); }

async function load() {
  try {
    [metrics, events] = await Promise.all([api("GET", "/metrics"), api("GET", `/pis/${mac}/events?limit=300`)]);
    tell();
    if (picture.pis[mac]) draw(picture.pis[mac]);
    const fetched = await api("GET", `/pis/${mac}/files?limit=100`);
    if (fetched.length) files.replaceChildren(h("h2", {}, "Files it fetched"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Name", "Size", "Took", "Sent again", "Outcome"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, fetched.reverse().map((each) => h("tr", {}, h("td", { class: "mono" }, each.name), h("td", { class: "number" }, each.size ? megabytes(each.size) : ""), h("td", { class: "number" }, span(each.seconds)), h("td", { class: "number" }, each.resent || ""), h("td", {}, each.outcome)))))));
    else files.remove();
    drawGraphs();
    setInterval(() => { if (!document.hidden) drawGraphs(); }, 30000);
  } catch (error) { toast(error.message, true); }
}

const since = h("select", { "aria-label": "Over how long", onchange: () => drawGraphs() }, [[3600, "an hour"], [86400, "a day"], [604800, "a week"], [2592000, "a month"]].map(([value, word]) => h("option", { value }, word)));

async function drawGraphs() {
  const known = picture.pis[mac]?.values || {};
  const wanted = metrics.filter((each) => known[each.name] !== undefined && each.kind !== "flag").slice(0, 9);
  if (!wanted.length) { graphs.replaceChildren(h("h2", {}, "Graphs"), h("p", { class: "muted" }, "Nothing was measured yet.")); return; }
  const until = Math.floor(now());
  const found = await Promise.all(wanted.map((each) => api("GET", `/pis/${mac}/samples?metric=${each.name}&since=${until - Number(since.value)}&until=${until}&points=200`)));
  graphs.replaceChildren(h("div", { class: "bar" }, h("h2", {}, "Graphs"), since), h("div", { class: "graphs" }, found.map((each, number) => h("div", {}, h("h3", {}, h("span", {}, wanted[number].name.replaceAll("_", " ")), h("span", { class: "muted" }, each.points.length ? `${Number(each.points.at(-1)[1].toFixed(1))} ${each.unit === "count" ? "" : each.unit}` : "")), graph(each.points, until - Number(since.value), until)))));
}

function graph(points, from, to) {
  const low = Math.min(...points.map((each) => each[2]), Infinity);
  const high = Math.max(...points.map((each) => each[3]), -Infinity);
  const room = (high - low || 1) * 0.1;
  const x = (when) => (((when - from) / (to - from)) * 400).toFixed(1);
  const y = (value) => (100 - ((value - low + room) / (high - low + 2 * room || 1)) * 100).toFixed(1);
  const line = points.map((each, number) => `${number ? "L" : "M"}${x(each[0])} ${y(each[1])}`).join("");
  const range = points.length ? `M${points.map((each) => `${x(each[0])} ${y(each[3])}`).join("L")}L${[...points].reverse().map((each) => `${x(each[0])} ${y(each[2])}`).join("L")}Z` : "";
  return h("svg", { class: "graph", viewBox: "0 0 400 100", preserveAspectRatio: "none", role: "img", "aria-label": points.length ? `from ${low.toFixed(1)} to ${high.toFixed(1)}` : "no data" }, h("path", { class: "range", d: range }), h("path", { d: line }));
}
