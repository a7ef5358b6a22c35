// One Pi: facts, buttons, graphs, its boots with their files, and its timeline in one place.
import { actions, ago, api, attempt, badge, clock, h, Kept, live, may, measure, megabytes, mood, now, page, picture, place, put, save, show, span, Timeline, title, toast } from "./app.js";

const mac = page.dataset.mac;
const named = h("h1");
const state = h("span", { class: "bar inner" });
const notes = h("div");
const buttons = h("div", { class: "bar" }, actions(() => (picture.pis[mac] && picture.pis[mac].known ? [picture.pis[mac]] : [])));
const adopt = h("p", {}, "It is not in hosts.csv. ", h("a", { href: "/" }, "Adopt it on the rack's page."));
const takeBack = h("button", { onclick: attempt(async () => { await api("DELETE", `/orders/${mac}`); toast("the order is taken back"); }) }, "Take it back");
const head = h("section", { class: "card" }, h("div", { class: "bar" }, named, state, takeBack), notes, buttons, adopt);
const list = h("dl", { class: "facts" });
const facts = new Kept(list);
const boots = h("section", { class: "card" });
const graphs = h("section", { class: "card" });
const filter = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter the events", oninput: tell });
const told = new Timeline(false);
const story = h("section", { class: "card" }, h("div", { class: "bar" }, h("h2", {}, "Timeline"), filter, save(() => events || [], `${mac.replaceAll(":", "-")}.csv`)), told.node);
const found = h("span", { role: "status", class: "push muted" });
const look = h("button", { onclick: attempt(async () => {
  found.textContent = "asking the switches …";
  try { const seen = await api("GET", `/findport/${mac}`); found.textContent = `${seen.where}${seen.watts === null ? "" : `, ${seen.watts} W`}`; } catch (error) { found.textContent = ""; throw error; }
}) }, "Find its port");
let events = null;
let metrics = [];
let drawn = "";

live((shown, what) => {
  if (!shown.ready) return;
  const pi = shown.pis[mac];
  if (!pi) { show(h("section", { class: "card" }, h("h1", {}, mac), h("p", {}, "Nobody has heard of this Pi."))); return; }
  if (!head.isConnected) { show(head, h("div", { class: "columns" }, h("section", { class: "card" }, h("div", { class: "bar" }, h("h2", {}, "Facts"), may("operate") ? [found, look] : null), list), h("div", {}, boots, story)), graphs); load(); }
  if (!what || what.pis?.[mac] || what.jobs || what.rack) draw(pi);
  const news = what?.events?.filter((each) => each.mac === mac) || [];
  if (events && news.length) { events.push(...news); tell(); later(); }
});

function draw(pi) {
  document.title = `${pi.name || mac} · ${picture.rack.title}`;
  named.textContent = pi.name || mac;
  takeBack.hidden = !(pi.ordered && may("operate"));
  buttons.hidden = !pi.known;
  adopt.hidden = pi.known;
  const jobs = Object.values(picture.jobs).filter((job) => job.state === "running" && job.targets.some((each) => each.startsWith(`${pi.name} (`)));
  const moves = pi.percent !== null && mood(pi)[0] === "busy" ? `${megabytes(pi.done)} of ${megabytes(pi.total)}, ${Math.round(pi.percent)} %` : "";
  const said = JSON.stringify([mood(pi), moves, pi.ordered, pi.trouble, jobs.map((job) => [job.kind, job.steps.at(-1)?.text])]);
  if (said !== drawn) {
    drawn = said;
    put(state, badge(pi), moves ? h("span", {}, moves) : null, pi.ordered ? h("span", { class: "badge busy" }, "reinstall ordered") : null);
    put(notes, pi.trouble ? h("p", { class: "problem", role: "alert" }, pi.trouble) : null, ...jobs.map((job) => h("p", { role: "status" }, `${job.kind}: ${job.steps.at(-1)?.text || "begins"}`)));
  }
  drawFacts(pi);
}

function drawFacts(pi) {
  const row = (word, value, mono = false) => (value ? { key: word, said: value, make: () => h("div", {}, h("dt", {}, word), h("dd", { class: mono ? "mono" : null }, value)) } : null);
  const words = { sd_bytes: ["SD card", (value) => `${(Number(value) / 1e9).toFixed(1)} GB`] };
  facts.draw([
    row("MAC", mac, true), row("Address", pi.address, true), row("Switch / port", place(pi)),
    row("Stage", pi.stage && `${pi.stage}, since ${clock(pi.since)}`), row("It said last", pi.heard && `${pi.heard} (${ago(pi.heard_at)})`), row("We sent last", pi.sent && `${pi.sent} (${ago(pi.sent_at)})`),
    row("Works", pi.up === null ? "" : `${pi.up ? "yes" : "no"}: ${pi.evidence}`), ...Object.entries(pi.facts).map(([key, value]) => row(words[key]?.[0] || key.replaceAll("_", " "), words[key]?.[1](value) || value)),
    ...metrics.filter((each) => pi.values[each.name] !== undefined && each.name !== "up").map((each) => row(title(each.name), measure(pi.values[each.name], each.unit))),
  ].filter(Boolean));
}

function tell() {
  const word = filter.value.toLowerCase();
  told.draw((events || []).filter((each) => each.text.toLowerCase().includes(word)).slice(-300));
}

// ------------------------------------------------------------------------------------------------------- the boots

let all = [];
let chosen = 0; // when the boot that is shown began; 0: the last one
let timer = 0;
const which = h("select", { "aria-label": "Which boot", onchange: () => { chosen = which.selectedIndex ? Number(which.value) : 0; drawBoot(); } });
const sum = h("p", {});
const steps = h("ul", { class: "steps" });
const files = h("tbody");
const fetched = h("summary", {});
const filesOf = h("details", {}, fetched, h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Name", "Size", "Took", "Sent again", "Outcome"].map((word) => h("th", { scope: "col" }, word)))), files)));
boots.append(h("div", { class: "bar" }, h("h2", {}, "Boots"), which), sum, steps, filesOf);

/** Soon, and once for many events. */
function later() { clearTimeout(timer); timer = setTimeout(() => loadBoots().catch((error) => toast(error.message, true)), 700); }

async function loadBoots() {
  all = (await api("GET", `/pis/${mac}/boots?limit=20`)).reverse();
  const said = all.map((each) => `${clock(each.began)}, ${each.outcome}${each.installed ? ", installed" : ""}`);
  if (JSON.stringify(said) !== which.dataset.said) {
    which.dataset.said = JSON.stringify(said);
    which.replaceChildren(...all.map((each, number) => h("option", { value: each.began }, number ? said[number] : `the last: ${said[number]}`)));
  }
  boots.hidden = !all.length;
  which.value = String((all.find((each) => each.began === chosen) || all[0])?.began);
  drawBoot();
}

/** A bar for each stage: how long it took, and where in the whole. */
function drawBoot() {
  const boot = all.find((each) => each.began === chosen) || all[0];
  if (!boot) return;
  const end = boot.ended ?? now();
  const whole = end - boot.began || 1;
  const outcome = { up: `up after ${span(whole)}`, running: `under way for ${span(whole)}`, failed: `failed after ${span(whole)}: ${boot.reason}`, "broken off": `broken off after ${span(whole)}` }[boot.outcome];
  put(sum, h("span", { class: boot.outcome === "failed" ? "problem" : "" }, outcome), boot.installed ? `, with an install of ${boot.installed}` : "");
  steps.replaceChildren(...boot.stages.map((each) => {
    const took = each.seconds ?? Math.max(0, end - each.began);
    const bar = h("i");
    bar.style.setProperty("--from", (each.began - boot.began) / whole);
    bar.style.setProperty("--share", took / whole);
    return h("li", {}, h("span", {}, each.stage), h("span", { class: "track", "aria-hidden": "true" }, bar), h("span", { class: "seconds" }, each.seconds === null ? `${span(took)} …` : span(took)));
  }));
  const got = boot.files.filter((each) => each.outcome === "complete");
  filesOf.hidden = !boot.files.length;
  fetched.textContent = `${got.length} files, ${megabytes(got.reduce((total, each) => total + each.size, 0))}${boot.files.length > got.length ? `; ${boot.files.length - got.length} asked for and not had` : ""}`;
  files.replaceChildren(...boot.files.map((each) => h("tr", {}, h("td", { class: "mono" }, each.name), h("td", { class: "number" }, each.size ? megabytes(each.size) : ""), h("td", { class: "number" }, span(each.seconds)), h("td", { class: "number" }, each.resent || ""), h("td", {}, each.outcome))));
}

async function load() {
  try {
    [metrics, events] = await Promise.all([api("GET", "/metrics"), api("GET", `/pis/${mac}/events?limit=300`), loadBoots()]);
    tell();
    if (picture.pis[mac]) draw(picture.pis[mac]);
    drawGraphs();
    setInterval(() => { if (!document.hidden && !graphs.querySelector("details[open], :hover, :focus")) drawGraphs(); }, 30000);
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
