// The first steps: from nothing to a config.yaml.
import { api, attempt, diff, h, show, toast } from "./app.js";
import { field, problemList } from "./files.js";

let found = null;
const switches = [];
const result = h("div", { "aria-live": "polite" });
const list = h("div");

function wanted() {
  const value = (name) => inputs[name].input.value.trim();
  return { private_number: value("private_number"), server_address: value("server_address"), subnet_mask: value("subnet_mask"), interface: value("interface"), unknown_pis: value("unknown_pis"),
    switches: switches.filter((each) => each.address.value.trim()).map((each) => ({ address: each.address.value.trim(), name: each.name.value.trim(), ports: Number(each.ports.value) || 0 })) };
}

const inputs = {};
let timer = 0;
function typed() { clearTimeout(timer); timer = setTimeout(() => check().catch((error) => toast(error.message, true)), 300); }

async function check() {
  const draft = await api("POST", "/wizard/check", wanted());
  for (const each of Object.values(inputs)) each.mark("");
  const left = draft.problems.filter((problem) => { inputs[problem.key]?.mark(problem.text); return !inputs[problem.key]; });
  if (found.needed) result.replaceChildren(h("section", { class: "card" }, h("h2", {}, "4. This will be config.yaml"), diff(draft.diff), problemList(left),
    h("button", { class: "main", disabled: draft.problems.length > 0 || !found.needed, onclick: attempt(async () => { await api("POST", "/wizard/apply", wanted()); toast("config.yaml is written"); location.assign("/"); }) }, "Write it")));
}

function addSwitch() {
  const each = { address: h("input", { placeholder: "172.30.4.254", autocomplete: "off", oninput: typed }), name: h("input", { placeholder: "upper", autocomplete: "off", oninput: typed }), ports: h("input", { type: "number", min: 0, max: 64, value: "8", oninput: typed }), community: h("input", { type: "password", placeholder: "public", autocomplete: "off" }) };
  const said = h("p", { role: "status", class: "help" });
  const test = h("button", { onclick: attempt(async () => {
    said.textContent = "asking …";
    const answer = await api("POST", "/wizard/switch", { address: each.address.value.trim(), ...(each.community.value ? { read_community: each.community.value } : {}) });
    said.className = answer.ok ? "good" : "problem";
    said.textContent = answer.ok ? `${answer.description}: ${answer.ports.length} PoE ports` : `${answer.text}. ${answer.advice}`;
    if (answer.ports.length) { each.ports.value = String(answer.ports.length); typed(); }
  }) }, "Test it");
  switches.push(each);
  list.append(h("fieldset", { class: "card" }, h("legend", {}, `Switch ${switches.length - 1}`), h("div", { class: "fields" }, field("Address", each.address).node, field("Name", each.name).node, field("Ports with a Pi", each.ports, "each gets an address").node, field("Read community", each.community, "for the test; keep it in .env").node), h("div", { class: "bar" }, test, said)));
}

async function begin() {
  found = await api("GET", "/wizard");
  const text = (value, help) => [h("input", { value: value || "", autocomplete: "off", oninput: typed }), help];
  const choice = h("select", { onchange: () => { const link = found.interfaces.find((each) => each.name === choice.value); if (link?.address) { inputs.server_address.input.value = link.address; inputs.subnet_mask.input.value = link.mask; } typed(); } }, found.interfaces.map((each) => h("option", { value: each.name }, `${each.name}${each.address ? `, ${each.address}` : ", no address"}${each.carrier ? "" : ", no link"}`)));
  choice.value = found.proposal.interface;
  inputs.interface = field("Interface to the Pis", choice, "rather not the one that leads to the office: DHCP runs there");
  inputs.server_address = field("This manager's address", ...text(found.proposal.server_address, "on that network"));
  inputs.subnet_mask = field("Subnet mask", ...text(found.proposal.subnet_mask, ""));
  inputs.private_number = field("VLAN", ...text(found.proposal.private_number, "any number, where you have none"));
  const unknown = h("select", { onchange: typed }, [["approve", "they wait until you adopt them on this page"], ["ignore", "they get no answer"]].map(([value, word]) => h("option", { value }, word)));
  inputs.unknown_pis = field("Pis that are not known yet", unknown);
  addSwitch();
  show(found.needed ? null : h("p", { class: "problem" }, `${found.path} exists already; `, h("a", { href: "/config" }, "edit it")),
    h("section", { class: "card" }, h("h2", {}, "1. The network of the Pis"), h("div", { class: "fields" }, Object.values(inputs).map((each) => each.node))),
    h("section", { class: "card" }, h("h2", {}, "2. The switches"), list, h("button", { onclick: addSwitch }, "Another switch")),
    h("section", { class: "card" }, h("h2", {}, "3. What the Pis get"), h("p", { class: found.image.problem ? "problem" : "good" }, found.image.problem ? `${found.image.path}: ${found.image.problem}. A Pi can be installed when there is one: piman image import FILE` : `${found.image.path}, ${(found.image.size / 1e6).toFixed(0)} MB`)),
    result);
  await check();
}

attempt(begin)();
