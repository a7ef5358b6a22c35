// CONFIG: a form of config.yaml's keys, and its text.
import { api, attempt, h, show, toast } from "./app.js";
import { Editor, field, problemList } from "./files.js";

let file = null; // as it was loaded
let inputs = []; // {key, kind, before, read(), mark()}
let extra = []; // switches that come or go
let text = null; // the textarea, in place of the form
const others = h("div", { role: "alert" });
const editor = new Editor("/config", change, mark, load);

function change() {
  if (!file) return null;
  if (text) return text.value === file.text ? null : { text: text.value };
  const changes = [];
  for (const each of inputs) {
    const value = each.read();
    if (JSON.stringify(value) !== JSON.stringify(each.before)) changes.push({ key: each.key, value });
  }
  changes.push(...extra);
  return changes.length ? { changes } : null;
}

function mark(problems) {
  const left = [];
  for (const each of inputs) each.mark("");
  for (const problem of problems) {
    const key = problem.key.replace(/^(?!switches)([a-z_.]+)\[\d+\]$/, "$1");
    const found = inputs.find((each) => each.key === key || each.key === problem.key) || inputs.find((each) => problem.key.startsWith(`${each.key}[`));
    if (found && !text) found.mark(problem.text); else left.push(problem);
  }
  others.replaceChildren(...[problemList(left)].filter(Boolean));
}

const words = (value) => value.split(",").map((part) => part.trim()).filter(Boolean);

function build(each) {
  let input;
  let read;
  const before = each.secret ? null : each.value;
  if (each.kind === "choice") {
    input = h("select", { onchange: () => editor.typed() }, h("option", { value: "" }, each.default ? `${each.default} (default)` : "-"), each.choices.map((choice) => h("option", { value: choice }, choice)));
    input.value = before || "";
    read = () => input.value || null;
  } else {
    const list = each.kind === "list" || each.kind === "choices";
    input = h("input", { type: each.secret ? "password" : "text", inputmode: each.kind === "number" ? "decimal" : null, autocomplete: "off", spellcheck: "false", placeholder: each.secret && each.set ? "set; not shown" : each.default, value: list ? (before || []).join(", ") : before || "", required: each.required, oninput: () => editor.typed() });
    read = () => (list ? (words(input.value).length ? words(input.value) : null) : input.value.trim() || null);
  }
  const made = field(each.label + (each.unit ? ` (${each.unit})` : ""), input, [each.help, each.live ? "" : "counts from the next start on"].filter(Boolean).join("; "));
  inputs.push({ key: each.key, before, read, mark: made.mark });
  return made.node;
}

function buildSwitch(each) {
  const address = each.fields[0].value || `switch ${each.index}`;
  const ports = each.pi_addresses.map((value, number) => {
    const key = `switches[${each.index}].pi_addresses[${number}]`;
    const input = h("input", { value: value || "", autocomplete: "off", class: "mono", oninput: () => editor.typed() });
    const made = field(`Port ${number + 1}`, input);
    inputs.push({ key, before: value, read: () => input.value.trim() || null, mark: made.mark });
    return made.node;
  });
  const room = h("div", { class: "ports-form" }, ports);
  let more = each.pi_addresses.length;
  const add = h("button", { onclick: () => {
    const key = `switches[${each.index}].pi_addresses[${more++}]`;
    const input = h("input", { autocomplete: "off", class: "mono", oninput: () => editor.typed() });
    const made = field(`Port ${more}`, input);
    inputs.push({ key, before: null, read: () => input.value.trim() || null, mark: made.mark });
    room.append(made.node);
    input.focus();
  } }, "Another port");
  const remove = h("button", { class: "danger", onclick: attempt(async () => { extra.push({ remove_switch: each.index }); await editor.compare(); extra.pop(); }) }, "Remove this switch");
  return h("fieldset", { class: "card" }, h("legend", {}, address), h("div", { class: "fields" }, each.fields.map(build)), h("h3", {}, "Which Pi is on which port"), room, h("div", { class: "bar" }, add, remove));
}

function newSwitch() {
  const address = h("input", { placeholder: "172.30.4.254", autocomplete: "off" });
  const name = h("input", { placeholder: "upper", autocomplete: "off" });
  return h("fieldset", { class: "card" }, h("legend", {}, "Another switch"), h("div", { class: "fields" }, field("Address", address).node, field("Name", name).node), h("div", { class: "bar" }, h("button", { onclick: attempt(async () => {
    const values = { address: address.value.trim(), ...(name.value.trim() ? { name: name.value.trim() } : {}) };
    extra = extra.filter((each) => !each.add_switch);
    extra.push({ add_switch: values });
    await editor.compare();
  }) }, "Add it")));
}

function draw() {
  inputs = [];
  const toggle = h("button", { onclick: () => { if (change()) { toast("apply or undo what you have changed first", true); return; } text = text ? null : h("textarea", { class: "file", "aria-label": "config.yaml", spellcheck: "false", value: file.text, oninput: () => editor.typed() }); draw(); } }, text ? "Edit as a form" : "Edit as text");
  if (!file.form && !text) { text = h("textarea", { class: "file", "aria-label": "config.yaml", spellcheck: "false", value: file.text, oninput: () => editor.typed() }); }
  const sections = [...new Set(file.fields.map((each) => each.section))];
  const form = text ? [text] : [
    h("section", { class: "card" }, h("h2", {}, "Switches"), file.switches.map(buildSwitch), newSwitch()),
    ...sections.map((section) => h("section", { class: "card" }, h("h2", {}, section === "Switches" ? "How the switches are asked" : section), h("div", { class: "fields" }, file.fields.filter((each) => each.section === section).map(build)))),
  ];
  const versions = h("section", { class: "card" }, h("h2", {}, "Earlier versions"), h("p", { class: "muted" }, "…"));
  editor.versions().then((list) => versions.replaceChildren(h("h2", {}, "Earlier versions"), list), (error) => toast(error.message, true));
  const top = h("div", { class: "bar" }, h("span", { class: "mono muted" }, file.path), h("span", { class: "push" }), toggle);
  show(top, file.writable ? null : h("p", { class: "problem" }, "This file cannot be written by the manager."), others, ...form, editor.bar, editor.below, versions);
  mark(file.problems);
}

async function load() {
  file = await api("GET", "/config");
  editor.base = file.base;
  extra = [];
  if (text) text = null;
  editor.below.replaceChildren();
  editor.say("");
  draw();
}

load().catch((error) => toast(error.message, true));
