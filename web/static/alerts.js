// What is wrong now: say that you know, or silence it.
import { ago, api, attempt, h, live, may, show, toast } from "./app.js";

const open = h("div");
const quiet = h("section", { class: "card" });
live((shown, what) => {
  if (!shown.ready || (what && !what.alerts && open.isConnected)) return;
  if (!open.isConnected) { show(open, quiet); silences(); }
  const rows = shown.alerts.map((each) => h("tr", {}, h("td", {}, h("span", { class: `badge ${each.severity}` }, each.severity)),
    h("td", {}, each.subject.includes(":") && !each.subject.startsWith("switch") ? h("a", { href: `/pi/${each.subject}` }, each.name) : each.name), h("td", {}, each.text), h("td", { class: "muted" }, ago(each.since)),
    h("td", {}, each.acknowledged ? `known to ${each.acknowledged}` : each.state),
    h("td", {}, may("operate") ? [!each.acknowledged ? h("button", { onclick: attempt(() => api("POST", `/alerts/${each.id}/acknowledge`)) }, "I know") : null, " ",
      h("button", { onclick: attempt(async () => { await api("POST", "/silences", { minutes: 60, subject: each.name || each.subject, rule: each.rule, why: "silenced on the page" }); toast("silent for an hour"); silences(); }) }, "Silence 1 h")] : null)));
  open.replaceChildren(h("section", { class: "card" }, h("h2", {}, rows.length ? `${rows.length} open` : "Nothing is wrong"), rows.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["", "Who", "What", "Since", "State", ""].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, rows))) : null));
});

async function silences() {
  try {
    const found = await api("GET", "/silences");
    quiet.hidden = !found.length;
    quiet.replaceChildren(h("h2", {}, "Silences"), h("ul", {}, found.map((each) => h("li", {}, `${each.rule} of ${each.subject}, by ${each.by}, until ${new Date(each.until * 1000).toLocaleTimeString()} `, may("operate") ? h("button", { onclick: attempt(async () => { await api("DELETE", `/silences/${each.id}`); silences(); }) }, "End it") : null))));
  } catch (error) { toast(error.message, true); }
}
