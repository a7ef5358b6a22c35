// Who may: password, tokens; and who did what.
import { api, ask, attempt, clock, h, show, toast } from "./app.js";
import { field } from "./files.js";

const tokens = h("div");
const made = h("div", { role: "status" });

async function drawTokens() {
  const found = await api("GET", "/tokens");
  tokens.replaceChildren(found.length ? h("table", {}, h("tbody", {}, found.map((each) => h("tr", {}, h("td", {}, each.name), h("td", {}, each.role), h("td", { class: "muted" }, clock(each.created)), h("td", {}, h("button", { onclick: attempt(async () => { if (await ask(`Remove ${each.name}?`, "Scripts with this token are refused from now on.", "Remove")) { await api("DELETE", `/tokens/${each.name}`); await drawTokens(); } }) }, "Remove")))))) : h("p", { class: "muted" }, "None yet."));
}

async function begin() {
  const name = field("Name", h("input", { autocomplete: "off" }));
  const role = field("Role", h("select", {}, ["read", "operate", "admin"].map((word) => h("option", { value: word }, word))), "read looks, operate restarts and reinstalls, admin edits");
  const add = h("button", { class: "main", onclick: attempt(async () => { const token = await api("POST", "/tokens", { name: name.input.value.trim(), role: role.input.value }); made.replaceChildren(h("p", {}, "Copy it now, it is not shown again:"), h("pre", {}, token.token)); await drawTokens(); }) }, "Make a token");
  const password = field("New password", h("input", { type: "password", autocomplete: "new-password" }), "8 characters at least; everybody has to log in again");
  const change = h("button", { onclick: attempt(async () => { await api("PUT", "/password", { password: password.input.value }); toast("the password is set"); setTimeout(() => location.assign("/login"), 800); }) }, "Set it");
  const trail = await api("GET", "/audit?limit=500");
  show(h("div", { class: "columns" }, h("section", { class: "card" }, h("h2", {}, "Tokens for scripts"), tokens, name.node, role.node, h("p", {}, add), made), h("section", { class: "card" }, h("h2", {}, "Password"), password.node, h("p", {}, change))),
    h("section", { class: "card" }, h("h2", {}, "Who did what"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["When", "Who", "Did", "To", "Result"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, trail.map((each) => h("tr", {}, h("td", {}, clock(each.when)), h("td", {}, each.who), h("td", {}, each.action), h("td", {}, each.subject), h("td", {}, each.result.includes("\n") ? h("details", {}, h("summary", {}, "the difference"), h("pre", {}, each.result)) : each.result))))))));
  await drawTokens();
}

attempt(begin)();
