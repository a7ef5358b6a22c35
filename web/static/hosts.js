// HOSTS.CSV: a row for each Pi, and its text.
import { ago, api, attempt, h, show, toast } from "./app.js";
import { Editor, problemList } from "./files.js";

let file = null;
let rows = []; // {mac, before, address, hostname (inputs), gone, fresh}
let text = null;
const others = h("div", { role: "alert" });
const editor = new Editor("/hosts", change, mark, load);

function change() {
  if (!file) return null;
  if (text) return text.value === file.text ? null : { text: text.value };
  const changes = [];
  for (const row of rows) {
    const [address, hostname] = [row.address.value.trim(), row.hostname.value.trim()];
    if (row.fresh) { if (row.mac.value.trim()) changes.push({ op: "add", mac: row.mac.value.trim(), address: address || "0.0.0.0", hostname }); continue; }
    if (row.gone) { changes.push({ op: "remove", mac: row.before.mac }); continue; }
    const edit = { op: "edit", mac: row.before.mac };
    if (address !== row.before.address) edit.address = address || "0.0.0.0";
    if (hostname !== row.before.hostname) edit.hostname = hostname;
    if (Object.keys(edit).length > 2) changes.push(edit);
  }
  return changes.length ? { changes } : null;
}

function mark(problems) {
  const left = [];
  for (const row of rows) for (const input of [row.address, row.hostname, row.mac]) { input?.removeAttribute?.("aria-invalid"); if (input?.title) input.title = ""; }
  for (const problem of problems) {
    const quoted = /found '([^']*)'|^(\S+) is /.exec(problem.text);
    const value = quoted ? quoted[1] ?? quoted[2] : "";
    const row = !text && value && [...rows].reverse().find((each) => [each.address, each.hostname, each.mac].some((input) => input?.value?.trim() === value));
    if (row) for (const input of [row.address, row.hostname, row.mac]) if (input?.value?.trim() === value) { input.setAttribute("aria-invalid", "true"); input.title = problem.text; }
    left.push(problem);
  }
  others.replaceChildren(...[problemList(left)].filter(Boolean));
}

function line(before) {
  const input = (value, label) => h("input", { value, "aria-label": label, autocomplete: "off", spellcheck: "false", oninput: () => editor.typed() });
  const row = { before, fresh: !before, gone: false, address: input(before ? before.address : "", `Address of ${before?.mac || "the new Pi"}`), hostname: input(before ? before.hostname : "", `Name of ${before?.mac || "the new Pi"}`) };
  row.mac = before ? null : input("", "MAC of the new Pi");
  const remove = h("button", { "aria-label": `Remove ${before?.mac || "this line"}`, onclick: () => { if (row.fresh) { rows = rows.filter((each) => each !== row); row.node.remove(); } else { row.gone = !row.gone; row.node.classList.toggle("muted", row.gone); remove.textContent = row.gone ? "Keep" : "Remove"; } editor.typed(); } }, "Remove");
  row.node = h("tr", {}, h("td", { class: "mono whole" }, before ? h("a", { href: `/pi/${before.mac}` }, before.mac) : row.mac), h("td", {}, row.address), h("td", {}, row.hostname), h("td", { class: "muted once" }, before ? ago(before.last_seen) : ""), h("td", { class: "end" }, remove));
  rows.push(row);
  return row.node;
}

function draw() {
  rows = [];
  const toggle = h("button", { onclick: () => { if (change()) { toast("apply or undo what you have changed first", true); return; } text = text ? null : h("textarea", { class: "file", "aria-label": "hosts.csv", spellcheck: "false", value: file.text, oninput: () => editor.typed() }); draw(); } }, text ? "Edit as a table" : "Edit as text");
  const body = h("tbody", {}, file.rows.map(line));
  const add = h("button", { onclick: () => { body.append(line(null)); rows.at(-1).mac.focus(); } }, "Another Pi");
  const table = h("section", { class: "card" }, h("div", { class: "scroll" }, h("table", { class: "stack" }, h("thead", {}, h("tr", {}, ["MAC", "Address", "Name", "Last seen", ""].map((word) => h("th", { scope: "col" }, word)))), body)), h("div", { class: "bar" }, add));
  const versions = h("section", { class: "card" });
  editor.versions().then((list) => versions.replaceChildren(h("h2", {}, "Earlier versions"), list), (error) => toast(error.message, true));
  show(h("div", { class: "bar" }, h("span", { class: "muted" }, "An empty address: one is picked. What is applied is in force at once."), h("span", { class: "push" }), toggle), others, text || table, editor.bar, editor.below, versions);
  mark(file.problems);
}

async function load() {
  file = await api("GET", "/hosts");
  editor.base = file.base;
  text = null;
  editor.below.replaceChildren();
  editor.say("");
  draw();
}

attempt(load)();
