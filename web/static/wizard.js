// The first steps: from nothing to a config.yaml, and on to a manager that runs.
import { api, attempt, diff, h, put, show, toast } from "./app.js";
import { field, problemList } from "./files.js";

let found = null;
const switches = [];
const inputs = {};
const list = h("div");
// The button stays the same element however often the draft is drawn, so that it keeps the focus.
const write = h("button", { class: "main", disabled: true, onclick: attempt(async () => { await api("POST", "/wizard/apply", wanted()); toast("config.yaml is written"); await lastStep(); }) }, "Write it");
const draftOf = h("div");
const result = h("section", { class: "card", "aria-live": "polite" }, h("h2", {}, "4. This will be config.yaml"), draftOf, write);

function wanted() {
  const value = (name) => inputs[name].input.value.trim();
  return { private_number: value("private_number"), server_address: value("server_address"), subnet_mask: value("subnet_mask"), interface: value("interface"), unknown_pis: value("unknown_pis"),
    switches: switches.filter((each) => each.address.input.value.trim()).map((each) => ({ address: each.address.input.value.trim(), name: each.name.input.value.trim(), ports: Number(each.ports.input.value) || 0, protected: each.leadsOn })) };
}

let timer = 0;
let number = 0;
function typed() { clearTimeout(timer); timer = setTimeout(() => check().catch((error) => toast(error.message, true)), 300); }

async function check() {
  const mine = ++number;
  const draft = await api("POST", "/wizard/check", wanted());
  if (mine !== number) return;
  for (const each of [...Object.values(inputs), ...switches.flatMap(({ address, name, ports }) => [address, name, ports])]) each.mark("");
  const filled = switches.filter((each) => each.address.input.value.trim());
  const left = draft.problems.filter((problem) => {
    const [, index, key] = /^switches\[(\d+)\]\.?(\w*)/.exec(problem.key) || [];
    const near = inputs[problem.key] || (index && (filled[index]?.[key === "pi_addresses" ? "ports" : key] || filled[index]?.address));
    near?.mark(problem.text);
    return !near;
  });
  put(draftOf, diff(draft.diff), problemList(left));
  write.disabled = draft.problems.length > 0;
}

function addSwitch() {
  const input = (about) => h("input", { autocomplete: "off", oninput: typed, ...about });
  const each = {
    leadsOn: [],
    address: field("Address", input({ placeholder: "172.30.4.254" }), "of its management"),
    name: field("Name", input({ placeholder: "upper" }), "as you call it; may be left out"),
    ports: field("Ports with a Pi", input({ type: "number", min: 0, max: 64, value: "8" }), "each gets an address for its Pi"),
    community: field("Read community", h("input", { type: "password", placeholder: "public", autocomplete: "off" }), "for this test alone; for good it is kept in .env"),
  };
  const said = h("p", { role: "status", class: "help" });
  const test = h("button", { onclick: attempt(async () => {
    said.className = "help";
    said.textContent = "asking …";
    const community = each.community.input.value;
    let answer;
    try { answer = await api("POST", "/wizard/switch", { address: each.address.input.value.trim(), ...(community ? { read_community: community } : {}) }); } catch (error) { said.className = "problem"; said.textContent = error.message; return; }
    said.className = answer.ok ? "good" : "problem";
    each.leadsOn = answer.leads_on;
    const leads = answer.leads_on.length ? `; ${answer.leads_on.length > 1 ? "ports" : "port"} ${answer.leads_on.join(", ")} to this machine or another switch: left alone` : "";
    said.textContent = answer.ok ? `${answer.description}: ${answer.ports.length} PoE ports${leads}` : `${answer.text}${/[.?!]$/.test(answer.text) ? "" : "."} ${answer.advice}`;
    if (answer.ports.length) { each.ports.input.value = String(Math.min(64, Math.max(...answer.ports))); typed(); }
  }) }, "Test it");
  const remove = h("button", { class: "push", onclick: () => { switches.splice(switches.indexOf(each), 1); box.remove(); typed(); } }, "Remove");
  const box = h("fieldset", { class: "card" }, h("legend", {}, `Switch ${switches.length}`), h("div", { class: "fields" }, [each.address, each.name, each.ports, each.community].map(({ node }) => node)), h("div", { class: "bar" }, test, said, switches.length ? remove : null));
  for (const { input } of [each.address, each.community]) input.addEventListener("input", () => { said.textContent = ""; each.leadsOn = []; });
  switches.push(each);
  list.append(box);
}

function firstStep() {
  const text = (value, help) => [h("input", { value: value || "", autocomplete: "off", oninput: typed }), help];
  const choice = h("select", { onchange: () => { const link = found.interfaces.find((each) => each.name === choice.value); if (link?.address) { inputs.server_address.input.value = link.address; inputs.subnet_mask.input.value = link.mask; } typed(); } }, found.interfaces.map((each) => h("option", { value: each.name }, `${each.name}${each.address ? `, ${each.address}` : ", no address"}${each.carrier ? "" : ", no link"}`)));
  choice.value = found.proposal.interface;
  inputs.interface = field("Interface to the Pis", choice, "rather not the one that leads to the office: DHCP runs there");
  inputs.server_address = field("This manager's address", ...text(found.proposal.server_address, "on that network"));
  inputs.subnet_mask = field("Subnet mask", ...text(found.proposal.subnet_mask, "like 255.255.255.0"));
  inputs.private_number = field("VLAN", ...text(found.proposal.private_number, "any number, where you have none"));
  const unknown = h("select", { onchange: typed }, [["approve", "wait until you adopt them"], ["ignore", "get no answer"]].map(([value, word]) => h("option", { value }, word)));
  inputs.unknown_pis = field("Pis that are not known yet", unknown, "those that wait are shown on the rack's page");
  return h("section", { class: "card" }, h("h2", {}, "1. The network of the Pis"), h("div", { class: "fields" }, Object.values(inputs).map((each) => each.node)));
}

function imageStep() {
  const { path, size, problem } = found.image;
  return h("section", { class: "card" }, h("h2", {}, "3. What the Pis get"), problem
    ? [h("p", { class: "problem" }, `${path}: ${problem}`), h("p", {}, "You can go on. A Pi is installed once there is one: ", h("code", {}, "piman image import raspios-lite.img.xz"))]
    : h("p", { class: "good" }, `${path}, ${(size / 1e6).toFixed(0)} MB`));
}

// ------------------------------------------------------------------------------------------------- then: it must run

/** What is still amiss, and a button that starts the manager, or the command that does. */
async function lastStep() {
  const about = await api("GET", "/wizard/start");
  if (about.runs) { location.assign("/"); return; }
  const amiss = about.checks.filter((each) => each.severity !== "info");
  const said = h("p", { role: "status" });
  const start = h("button", { class: "main", onclick: attempt(async () => { await api("POST", "/wizard/start"); said.textContent = "The manager starts …"; start.hidden = true; await arrive(about, said); }) }, "Start the manager");
  const again = h("button", { onclick: attempt(lastStep) }, "Look again");
  show(h("section", { class: "card" }, h("h2", {}, "5. Start the manager"),
    amiss.length ? [h("p", {}, "config.yaml is written. The manager can start; before a Pi can boot and be installed, see to this:"),
      h("ul", { class: "checks" }, amiss.map((each) => h("li", {}, h("span", { class: `badge ${each.severity}` }, each.area), h("div", {}, each.text, h("p", { class: "help" }, each.advice)))))] : h("p", { class: "good" }, "config.yaml is written, and all that a Pi needs is there."),
    switches.some((each) => each.community.input.value) ? h("p", {}, "The communities you typed are not kept. Put them into .env beside config.yaml, as ", h("code", {}, "PIMAN_SNMP_READ_COMMUNITY=…"), " and ", h("code", {}, "PIMAN_SNMP_WRITE_COMMUNITY=…"), ", before you start.") : null,
    about.can ? [h("p", {}, "The program behind this page goes on as the manager: it gives addresses, boots and installs the Pis, until Ctrl-C ends it. To have it start with the machine, see README, “On real hardware”."), h("div", { class: "bar" }, start, amiss.length ? again : null)]
      : [h("p", {}, "The program behind this page may not serve Pis: that needs root. In its terminal, press Ctrl-C and type"), h("pre", { tabindex: "0" }, about.commands.join("\n")), h("p", {}, "This page goes on by itself as soon as the manager runs."), amiss.length ? h("div", { class: "bar" }, again) : null],
    said));
  (about.can ? start : document.querySelector("#page pre"))?.focus();
  if (!about.can) await arrive(about, said, Infinity);
}

/** Go to the rack when a manager answers. Its page may have another port, which we may not ask: then simply go there. */
async function arrive({ address, here }, said, patience = 30) {
  const isHere = here || patience === Infinity;
  for (let second = 0; second < patience; second++) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    try {
      if (!isHere && second > 3) { location.assign(address); return; }
      if (isHere && (await api("GET", "/rack")).server_runs) { location.assign("/"); return; }
    } catch { /* it is on its way from one to the other */ }
  }
  said.className = "problem";
  said.textContent = `The manager did not start; the terminal in which the page was started says why. Its page would be ${address}`;
}

async function begin() {
  found = await api("GET", "/wizard");
  if (!found.needed) { await afterwards(); return; }
  addSwitch();
  show(firstStep(),
    h("section", { class: "card" }, h("h2", {}, "2. The switches"), list, h("button", { onclick: addSwitch }, "Another switch")),
    imageStep(), result);
  await check();
}

async function afterwards() {
  const about = await api("GET", "/wizard/start");
  if (!about.runs) { await lastStep(); return; }
  show(h("section", { class: "card" }, h("p", {}, `${found.path} is there, and a manager runs with it. `, h("a", { href: "/config" }, "Edit it"), ", or look at ", h("a", { href: "/" }, "the rack"), ".")));
}

attempt(begin)();
