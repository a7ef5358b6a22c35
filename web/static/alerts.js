// What is wrong now: say that you know, or silence it.
import { ago, api, attempt, clock, h, Kept, live, may, show, span, toast } from "./app.js";

const heading = h("h2", { "aria-live": "polite" });
const rows = h("tbody");
const lines = new Kept(rows);
const minutes = h("select", { id: "silence-for" }, [[60, "an hour"], [480, "8 hours"], [1440, "a day"], [10080, "a week"]].map(([value, word]) => h("option", { value }, word)));
const table = h("div", { class: "scroll" }, h("table", { class: "stack" }, h("thead", {}, h("tr", {}, ["How bad", "Who", "What", "Since", "State"].map((word) => h("th", { scope: "col" }, word)), may("operate") ? h("th", { scope: "col", class: "kept" }, h("label", { class: "inline", for: "silence-for" }, "Silence for ", minutes)) : null)), rows));
const calm = h("p", { class: "muted", hidden: true }, "What is watched, and who is told, stands in CONFIG under “Alerts”.");
const open = h("section", { class: "card" }, heading, calm, table);
const ends = h("ul", { class: "lines" });
const silent = new Kept(ends);
const quiet = h("section", { class: "card", hidden: true }, h("h2", {}, "Silences"), ends);
const past = h("tbody");
const over = h("section", { class: "card", hidden: true }, h("h2", {}, "Over lately"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Who", "What", "From", "For"].map((word) => h("th", { scope: "col" }, word)))), past)));
const ended = new Kept(past);
const severities = { critical: 0, warning: 1, info: 2 };

live((shown, what) => {
  if (!shown.ready) return;
  if (!open.isConnected) { show(open, quiet, over); silences(); lately(); }
  if (what && !what.alerts) return;
  const alerts = [...shown.alerts].sort((a, b) => severities[a.severity] - severities[b.severity] || a.since - b.since);
  heading.textContent = alerts.length ? `${alerts.length} open` : "Nothing is wrong";
  calm.hidden = alerts.length > 0;
  table.hidden = !alerts.length;
  lines.draw(alerts.map((each) => ({ key: each.id, said: JSON.stringify([each.severity, each.name, each.text, each.state, each.acknowledged]), make: () => line(each) })));
  tick();
  if (what) { silences(); lately(); }
});

const whose = (each) => (each.subject.includes(":") && !each.subject.startsWith("switch") ? h("a", { href: `/pi/${each.subject}` }, each.name) : each.name || each.subject);

function line(each) {
  return h("tr", {}, h("td", {}, h("span", { class: `badge ${each.severity}` }, each.severity)),
    h("td", {}, whose(each)), h("td", { class: "whole" }, each.text), h("td", { class: "muted once", "data-since": each.since }),
    h("td", {}, each.acknowledged ? `known to ${each.acknowledged}` : [each.state, each.suppressed || each.silenced].filter(Boolean).join(": ")),
    may("operate") ? h("td", { class: "once end" }, h("span", { class: "pair" }, !each.acknowledged ? h("button", { onclick: attempt(async () => { await api("POST", `/alerts/${each.id}/acknowledge`); toast("noted: nobody is told of it again"); }) }, "I know") : null, h("button", { onclick: attempt(() => silence(each)) }, "Silence"))) : null);
}

async function silence(each) {
  const who = each.name || each.subject;
  await api("POST", "/silences", { minutes: Number(minutes.value), subject: who, rule: each.rule, why: "silenced on the page" });
  toast(`${each.rule} of ${who} is silent for ${minutes.selectedOptions[0].textContent}`);
  await silences();
}

async function silences() {
  try {
    const found = await api("GET", "/silences");
    quiet.hidden = !found.length;
    silent.draw(found.map((each) => ({ key: each.id, said: "", make: () => h("li", {}, h("span", {}, `${each.rule} of ${each.subject}, until ${new Date(each.until * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}`), h("span", { class: "muted" }, `by ${each.by}${each.why ? `: ${each.why}` : ""}`), may("operate") ? h("button", { class: "push", onclick: attempt(async () => { await api("DELETE", `/silences/${each.id}`); toast("no longer silent"); await silences(); }) }, "End it") : null) })));
  } catch (error) { toast(error.message, true); }
}

async function lately() {
  try {
    const found = (await api("GET", "/alerts?all=true&limit=300")).filter((each) => each.resolved_at).sort((a, b) => b.resolved_at - a.resolved_at).slice(0, 30);
    over.hidden = !found.length;
    ended.draw(found.map((each) => ({ key: each.id, said: each.text, make: () => h("tr", {}, h("td", {}, whose(each)), h("td", {}, each.text), h("td", { class: "once" }, clock(each.since)), h("td", { class: "once" }, span(each.resolved_at - each.since))) })));
  } catch (error) { toast(error.message, true); }
}

/** Time passes without any news. */
function tick() { for (const cell of rows.querySelectorAll("[data-since]")) cell.textContent = ago(Number(cell.dataset.since)); }
setInterval(tick, 10000);
