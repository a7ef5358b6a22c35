// CONFIG: a form of config.yaml's keys and lists, and its text.
import { api, attempt, clock, h, megabytes, show, toast } from "./app.js";
import { Editor, field, problemList } from "./files.js";

let file = null; // as it was loaded
let inputs = []; // {key(), before, read(), mark()}; key() as it will be in the file, after what goes before it has gone
let lists = []; // of entries that come and go
let text = null; // the textarea, in place of the form
const others = h("div", { role: "alert" });
const editor = new Editor("/config", change, mark, load);

function change() {
  if (!file) return null;
  if (text) return text.value === file.text ? null : { text: text.value };
  const changes = [];
  for (const each of inputs) {
    if (each.entry?.gone || each.entry?.fresh) continue;
    const value = each.read();
    if (JSON.stringify(value) !== JSON.stringify(each.before)) changes.push({ key: each.name, value });
  }
  for (const list of lists) changes.push(...list.changes());
  return changes.length ? { changes } : null;
}

function mark(problems) {
  const left = [];
  for (const each of inputs) each.mark("");
  for (const problem of problems) {
    const key = problem.key.replace(/^(?!switches|subnets|monitoring)([a-z_.]+)\[\d+\]$/, "$1");
    const usable = text ? [] : inputs.filter((each) => !each.entry?.gone && each.key());
    const found = usable.find((each) => each.key() === key || each.key() === problem.key) || usable.find((each) => problem.key.startsWith(`${each.key()}[`))
      || usable.find((each) => each.entry && each.entry.key() === problem.key) || usable.find((each) => each.key().startsWith(`${problem.key}.`));
    if (!found) { left.push(problem); continue; }
    found.mark(problem.text);
    for (let at = found.node.closest("details"); at; at = at.parentElement.closest("details")) at.open = true;
  }
  others.replaceChildren(...[problemList(left)].filter(Boolean));
}

const words = (value) => value.split(",").map((part) => part.trim()).filter(Boolean);

/** An input for a field, and its label; `entry`: of a list, where the field's key is below the entry's. */
function build(each, entry = null) {
  let input;
  let read;
  const before = each.secret ? null : each.value;
  if (each.kind === "choice") {
    input = h("select", { onchange: () => { sift(entry); editor.typed(); } }, h("option", { value: "" }, each.default ? `${each.default} (default)` : "-"), each.choices.map((choice) => h("option", { value: choice }, choice)));
    input.value = before || "";
    read = () => input.value || null;
  } else {
    const list = each.kind === "list" || each.kind === "choices";
    input = h("input", { type: each.secret ? "password" : "text", inputmode: each.kind === "number" ? "decimal" : null, autocomplete: "off", spellcheck: "false", placeholder: each.secret && each.set ? "set; not shown" : each.default, value: list ? (before || []).join(", ") : before || "", required: each.required, oninput: () => { if (each.key.endsWith("driver")) sift(entry); editor.typed(); } });
    read = () => (list ? (words(input.value).length ? words(input.value) : null) : input.value.trim() || null);
  }
  const made = field(each.label + (each.unit ? ` (${each.unit})` : ""), input, [each.help, each.live ? "" : "counts from the next start on"].filter(Boolean).join("; "));
  made.node.dataset.words = `${each.key} ${each.label} ${each.help}`.toLowerCase();
  add(each.key, before, read, made, entry, each.of);
  return made.node;
}

function add(name, before, read, made, entry, of = []) {
  const below = entry?.fresh ? name : entry ? name.slice(entry.name.length) : "";
  const key = () => (entry ? `${entry.key()}${entry.fresh ? "." : ""}${below}` : name);
  const one = { name, key, before, read, mark: made.mark, node: made.node, input: made.input, entry, of };
  inputs.push(one);
  entry?.inputs.push(one);
}

/** Show of an entry what belongs to its type or driver, and what is filled in all the same. */
function sift(entry) {
  if (!entry) return;
  const kind = entry.inputs.find((each) => /(^|\.)(type|driver)$/.test(each.name))?.read() || "";
  for (const each of entry.inputs) if (each.of.length) each.node.hidden = !each.of.includes(kind) && !each.read();
}

/** An entry's fields: those always seen, and the others folded away by what they are about. */
function arrange(views, entry) {
  const parts = [...new Set(views.map((each) => each.section))].filter(Boolean);
  const of = (part) => h("div", { class: "fields" }, views.filter((each) => each.section === part).map((each) => build(each, entry)));
  return [of(""), ...parts.map((part) => h("details", { open: views.some((each) => each.section === part && each.set) }, h("summary", {}, part), of(part)))];
}

/** A list of config.yaml whose entries have keys: what changes in it, what goes, what comes. */
class List {
  constructor(about, views) {
    Object.assign(this, { about, entries: [], added: 0 });
    this.room = h("div");
    this.isSwitches = about.key === "switches";
    views.forEach((each, index) => this.room.append(this.entry(each, index)));
    this.node = h("div", {}, this.room, h("button", { type: "button", onclick: () => { const node = this.entry(about.fields, null); this.room.append(node); node.querySelector("input, select").focus(); } }, `Another ${about.one}`));
  }

  entry(views, index) {
    const fresh = index === null;
    const named = this.about.named ? /^\w+\.([^.[]+)/.exec(views[0].key)?.[1] : null; // its name in the file, where it has one
    const entry = { fresh, gone: false, index, inputs: [], name: this.about.named ? `${this.about.key}.${named}` : `${this.about.key}[${index}]` };
    entry.key = () => (this.about.named ? `${this.about.key}.${fresh ? entry.called.value.trim() : named}` : `${this.about.key}[${this.place(entry)}]`);
    this.entries.push(entry);
    const fields = this.isSwitches && !fresh ? views.fields : views;
    const title = fresh ? `New ${this.about.one}` : this.title(fields) || `${this.about.one} ${index}`;
    if (fresh && this.about.named) entry.called = h("input", { autocomplete: "off", spellcheck: "false", placeholder: "acme", oninput: () => editor.typed() });
    const body = h("div", {}, entry.called ? field("Name", entry.called, "as a switch gives it under Driver").node : null, arrange(fields, entry), this.isSwitches ? portsOf(fresh ? [] : views.pi_addresses, entry) : null);
    const remove = h("button", { type: "button", class: "danger", onclick: () => {
      if (fresh) { this.entries.splice(this.entries.indexOf(entry), 1); inputs = inputs.filter((each) => each.entry !== entry); box.remove(); editor.typed(); return; }
      entry.gone = !entry.gone;
      body.hidden = entry.gone;
      box.classList.toggle("muted", entry.gone);
      remove.textContent = entry.gone ? "Keep it" : `Remove this ${this.about.one}`;
      editor.typed();
    } }, fresh ? "Not this one" : `Remove this ${this.about.one}`);
    const box = h("fieldset", { class: "card entry" }, h("legend", {}, title), remove, body);
    sift(entry);
    return box;
  }

  title(fields) { return this.about.named ? fields[0].key.split(".")[1] : (this.isSwitches ? fields.slice(0, 2) : fields.filter((each) => !each.secret && each.value).slice(0, 1)).map((each) => each.value).filter(Boolean).join(", "); }

  values(entry) { return Object.fromEntries(entry.inputs.map((each) => [each.name, each.read()]).filter(([, value]) => value !== null)); }

  /** Its number in the file as it will be; those that say nothing do not come. */
  place(entry) {
    return this.entries.filter((each) => !each.gone && (!each.fresh || each === entry || Object.keys(this.values(each)).length)).indexOf(entry);
  }

  /** Of a section whose keys have names: each goes and comes like any other key. */
  namedChanges() {
    const gone = this.entries.filter((each) => each.gone).map((each) => ({ key: each.name, value: null }));
    const fresh = this.entries.filter((each) => each.fresh && each.called.value.trim()).flatMap((each) => Object.entries({ like: "standard", ...this.values(each) }).map(([key, value]) => ({ key: `${each.key()}.${key}`, value })));
    return [...gone, ...fresh];
  }

  changes() {
    if (this.about.named) return this.namedChanges();
    const gone = this.entries.filter((each) => each.gone).map((each) => each.index).sort((a, b) => b - a);
    const fresh = this.entries.filter((each) => each.fresh).map((each) => this.values(each)).filter((values) => Object.keys(values).length);
    const name = this.about.key;
    return [...gone.map((index) => (this.isSwitches ? { remove_switch: index } : { remove_item: { list: name, index } })), ...fresh.map((values) => (this.isSwitches ? { add_switch: ported(values) } : { add_item: { list: name, values } }))];
  }
}

/** The ports of a new switch as one list, up to the last that has a Pi. */
function ported(values) {
  const found = Object.entries(values).filter(([key]) => key.startsWith("pi_addresses["));
  if (!found.length) return values;
  const kept = Object.fromEntries(Object.entries(values).filter(([key]) => !key.startsWith("pi_addresses[")));
  const numbers = new Map(found.map(([key, value]) => [Number(/\d+/.exec(key)[0]), value]));
  return { ...kept, pi_addresses: Array.from({ length: Math.max(...numbers.keys()) + 1 }, (_none, number) => numbers.get(number) ?? null) };
}

function portsOf(addresses, entry) {
  const room = h("div", { class: "ports-form" });
  let count = 0;
  const another = (before) => {
    const name = `${entry.fresh ? "" : `${entry.name}.`}pi_addresses[${count++}]`;
    const input = h("input", { value: before || "", autocomplete: "off", class: "mono", oninput: () => editor.typed() });
    const made = field(`Port ${count}`, input);
    add(name, before, () => input.value.trim() || null, made, entry);
    room.append(made.node);
    return input;
  };
  addresses.forEach((each) => another(each));
  return [h("h3", {}, "Which Pi is on which port"), room, h("div", { class: "bar" }, h("button", { type: "button", onclick: () => another(null).focus() }, "Another port"))];
}

// ---------------------------------------------------------------------------------------------------------- the page

const unfolded = new Set(); // titles of parts that somebody opened

/** A part of the page: open where something is set, and folded where all is as it comes. */
function part(title, isSet, help, ...inside) {
  return h("details", { class: "card part", open: isSet || unfolded.has(title), ontoggle: (event) => { if (event.currentTarget.open) unfolded.add(title); else unfolded.delete(title); } }, h("summary", {}, h("h2", {}, title), isSet ? null : h("span", { class: "muted" }, "as it comes")), help ? h("p", { class: "help" }, help) : null, inside);
}

const order = ["switches", "Switches", "drivers", "Network", "subnets", "DHCP", "images", "Files", "Services", "Time", "Monitoring", "monitoring.rules", "Alerts: built in", "monitoring.channels", "Self-healing", "Web page"];

function parts() {
  const made = new Map();
  for (const section of new Set(file.fields.map((each) => each.section))) {
    const fields = file.fields.filter((each) => each.section === section);
    const help = section === "Alerts: built in" ? "The number from which on each of these rules raises an alert." : "";
    made.set(section, part(section === "Switches" ? "How the switches are asked" : section, fields.some((each) => each.set), help, h("div", { class: "fields" }, fields.map((each) => build(each)))));
  }
  for (const about of file.lists) {
    const list = new List(about, about.key === "switches" ? file.switches : about.entries);
    lists.push(list);
    made.set(about.key, part(about.title, about.key === "switches" || list.entries.length > 0, about.help, list.node));
  }
  made.set("images", imagesPart());
  const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  return [...made].sort(([a], [b]) => rank(a) - rank(b)).map(([, node]) => node);
}

/** What new installs get; chosen at once, since no file of ours is edited. */
function imagesPart() {
  const rows = h("tbody");
  const node = part("Images to install", true, "The chosen one is what new installs get. Another one comes with: piman image import FILE", h("div", { class: "scroll" }, h("table", {}, rows)));
  const fill = async () => {
    const found = await api("GET", "/images");
    rows.replaceChildren(...(found.length ? found.map((each) => h("tr", {}, h("td", {}, each.name), h("td", { class: "number once" }, megabytes(each.size)), h("td", { class: "once muted" }, clock(each.when)), h("td", {}, each.in_use ? h("span", { class: "badge ok" }, "chosen") : h("button", { type: "button", onclick: attempt(async () => { await api("PUT", "/images", { name: each.name }); toast(`new installs get ${each.name}`); await fill(); }) }, "Use it")))) : [h("tr", {}, h("td", {}, "None yet."))]));
  };
  fill().catch((error) => toast(error.message, true));
  return node;
}

/** What the doctor says, the worst first. */
async function examine() {
  const checks = await api("GET", "/doctor");
  const rank = ["error", "warning", "info"];
  checks.sort((a, b) => rank.indexOf(a.severity) - rank.indexOf(b.severity));
  const bad = checks.filter((each) => each.severity !== "info").length;
  said.hidden = false;
  said.replaceChildren(h("div", { class: "bar" }, h("h2", {}, bad ? `${bad} of ${checks.length} checks found something` : `All ${checks.length} checks are well`), h("button", { type: "button", class: "push", onclick: () => { said.hidden = true; } }, "Close")),
    h("ul", { class: "checks" }, checks.map((each) => h("li", {}, h("span", { class: `badge ${each.severity === "info" ? "ok" : each.severity}` }, each.area), h("div", {}, each.text, each.advice ? h("p", { class: "help" }, each.advice) : null)))));
}

const said = h("section", { class: "card", hidden: true, role: "status" });

/** A search that leaves of the form what it is about. */
function finder(form) {
  return h("input", { type: "search", placeholder: "Find a setting", "aria-label": "Find a setting", oninput: (event) => {
    const wanted = event.currentTarget.value.trim().toLowerCase();
    for (const each of form) {
      const title = each.querySelector("h2").textContent.toLowerCase().includes(wanted);
      let any = false;
      for (const node of each.querySelectorAll("[data-words]")) { const fits = !wanted || title || node.dataset.words.includes(wanted); node.classList.toggle("sifted", !fits); any ||= fits; }
      each.hidden = Boolean(wanted) && !any && !title;
      if (wanted && any) each.open = true;
    }
  } });
}

function area() { return h("textarea", { class: "file", "aria-label": "config.yaml", spellcheck: "false", value: file.text, oninput: () => editor.typed() }); }

function draw() {
  inputs = [];
  lists = [];
  const toggle = h("button", { onclick: () => { if (change()) { toast("apply or undo what you have changed first", true); return; } text = text ? null : area(); draw(); } }, text ? "Edit as a form" : "Edit as text");
  if (!file.form && !text) text = area();
  const form = text ? [text] : parts();
  const versions = h("section", { class: "card" }, h("h2", {}, "Earlier versions"), h("p", { class: "muted" }, "…"));
  editor.versions().then((list) => versions.replaceChildren(h("h2", {}, "Earlier versions"), list), (error) => toast(error.message, true));
  show(h("div", { class: "bar" }, text ? null : finder(form), h("span", { class: "mono muted" }, file.path), h("span", { class: "push" }), h("button", { type: "button", onclick: attempt(examine) }, "Check everything"), toggle), said, file.writable ? null : h("p", { class: "problem" }, "This file cannot be written by the manager."), others, ...form, editor.bar, editor.below, versions);
  mark(file.problems);
}

async function load() {
  file = await api("GET", "/config");
  editor.base = file.base;
  if (text) text = null;
  editor.below.replaceChildren();
  editor.say("");
  draw();
}

load().catch((error) => toast(error.message, true));
