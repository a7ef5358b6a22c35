// The rack as a table: search, sort, filter, choose many and act on them.
import { actions, ago, badge, h, keep, live, mood, picture, place, show } from "./app.js";

const columns = [
  ["Name", (pi) => pi.name || pi.mac, (pi) => h("a", { href: `/pi/${pi.mac}` }, pi.name || pi.mac)],
  ["State", (pi) => [...mood(pi), Math.round(pi.percent || 0)].join(), (pi) => (pi.percent !== null && mood(pi)[0] === "busy" ? h("span", {}, badge(pi), ` ${Math.round(pi.percent)} %`) : badge(pi))],
  ["Switch / port", (pi) => `${String(pi.switch ?? 99).padStart(4, "0")}${String(pi.port ?? 0).padStart(4, "0")}`, (pi) => place(pi)],
  ["Address", (pi) => pi.address.split(".").map((part) => part.padStart(3, "0")).join("."), (pi) => h("span", { class: "mono" }, pi.address)],
  ["MAC", (pi) => pi.mac, (pi) => h("span", { class: "mono" }, pi.mac)],
  ["Model", (pi) => pi.model, (pi) => pi.model],
  ["Image", (pi) => pi.image, (pi) => pi.image],
  ["Heat", (pi) => pi.values.temperature ?? -1, (pi) => (pi.values.temperature === undefined ? "" : `${Math.round(pi.values.temperature)} °C`)],
  ["Power", (pi) => pi.values.watts ?? -1, (pi) => (pi.values.watts === undefined ? "" : `${pi.values.watts.toFixed(1)} W`)],
  ["Heard", (pi) => -pi.heard_at, (pi) => ago(pi.heard_at)],
  ["Trouble", (pi) => pi.trouble, (pi) => pi.trouble],
];
const chosen = new Set();
const lines = new Map(); // MAC -> its row
let sorted = 0;
let falling = false;
const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search", oninput: draw });
const filter = h("select", { "aria-label": "Show", onchange: () => { history.replaceState(null, "", filter.value ? `#${filter.value}` : location.pathname); draw(); } }, [["", "All"], ["ok", "Up"], ["busy", "On their way"], ["bad", "In trouble"], ["never", "Never heard"], ["new", "Unknown"]].map(([value, word]) => h("option", { value }, word)));
filter.value = location.hash.slice(1);
if (filter.selectedIndex < 0) filter.value = "";
const count = h("span", { class: "muted", role: "status" });
const body = h("tbody");
const every = h("input", { type: "checkbox", "aria-label": "Choose all that are shown", onchange: () => { for (const pi of shown()) if (every.checked) chosen.add(pi.mac); else chosen.delete(pi.mac); draw(); } });
const buttons = actions(() => [...chosen].map((mac) => picture.pis[mac]).filter((pi) => pi?.known));
const heads = columns.map(([word], number) => h("th", { scope: "col" }, h("button", { onclick: () => { falling = sorted === number && !falling; sorted = number; draw(); } }, word)));

function shown() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (pi) => {
    const kind = mood(pi)[0];
    const wanted = { "": true, ok: kind === "ok", busy: kind === "busy", bad: kind === "error" || kind === "warning", never: pi.known && !pi.stage, new: !pi.known }[filter.value];
    const text = [pi.name, pi.mac, pi.address, pi.model, pi.serial, pi.image, pi.stage, pi.trouble, place(pi)].join(" ").toLowerCase();
    return wanted && words.every((word) => text.includes(word));
  };
  const key = columns[sorted][1];
  const order = (a, b) => { const [x, y] = [key(a), key(b)]; return (typeof x === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true })) * (falling ? -1 : 1); };
  return Object.values(picture.pis).filter(fits).sort(order);
}

function draw() {
  const rows = shown();
  heads.forEach((head, number) => (number === sorted ? head.setAttribute("aria-sort", falling ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
  keep(body, rows.map(line));
  tally(rows);
}

/** The row of a Pi: the same element as long as the page is open, and only cells that say something else are filled anew. */
function line(pi) {
  let kept = lines.get(pi.mac);
  if (!kept) {
    const box = h("input", { type: "checkbox", "aria-label": `Choose ${pi.name || pi.mac}`, onchange: () => { if (box.checked) chosen.add(pi.mac); else chosen.delete(pi.mac); tally(shown()); } });
    const cells = columns.map(([word]) => h("td", { class: { Trouble: "wide", Name: "once lead" }[word] || "once" }));
    kept = { box, cells, said: [], row: h("tr", {}, h("td", {}, box), cells) };
    lines.set(pi.mac, kept);
  }
  kept.box.checked = chosen.has(pi.mac);
  columns.forEach((column, number) => {
    const made = column[2](pi);
    const said = made instanceof Node ? made.outerHTML : made || "";
    if (kept.said[number] === said) return;
    kept.said[number] = said;
    kept.cells[number].replaceChildren(made || "");
  });
  return kept.row;
}

function tally(rows) {
  const here = rows.filter((pi) => chosen.has(pi.mac)).length;
  every.checked = rows.length > 0 && here === rows.length;
  every.indeterminate = here > 0 && here < rows.length;
  const hidden = chosen.size - here ? ` (${chosen.size - here} of them not shown)` : "";
  const said = chosen.size ? `${chosen.size} chosen${hidden}` : `${rows.length} ${rows.length === 1 ? "Pi" : "Pis"}; choose some to act on them`;
  for (const each of buttons) each.disabled = !chosen.size;
  if (count.textContent !== said) count.textContent = said;
}

const table = h("section", { class: "card" }, h("div", { class: "bar" }, search, filter, count, buttons, h("a", { class: "button push", href: "/labels" }, "Labels to print")), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, every), heads)), body)));
let waiting = false;
live((now) => {
  if (!now.ready || waiting) return;
  if (!table.isConnected) show(table);
  waiting = true; // a table of 500 rows is looked through once a second at most
  setTimeout(() => { waiting = false; draw(); }, body.childElementCount > 100 ? 1000 : 100);
});
