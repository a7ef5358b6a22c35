// The timeline of all Pis, as it grows.
import { api, h, live, save, show, Timeline, toast } from "./app.js";

let events = null;
const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search", oninput: draw });
const grave = h("select", { "aria-label": "Show", onchange: draw }, [["", "All"], ["warning", "Warnings and errors"], ["error", "Errors"]].map(([value, word]) => h("option", { value }, word)));
const list = new Timeline();
list.node.classList.add("tall");

function draw() {
  const words = search.value.toLowerCase();
  const fits = (each) => (!grave.value || each.severity === "error" || each.severity === grave.value) && `${each.name} ${each.mac} ${each.text}`.toLowerCase().includes(words);
  list.draw((events || []).filter(fits).slice(-300));
}

live((_shown, what) => { if (events && what?.events) { events.push(...what.events); draw(); } });
try {
  events = await api("GET", "/events?limit=1000");
  show(h("section", { class: "card" }, h("div", { class: "bar" }, search, grave, save(() => events || [], "events.csv")), list.node));
  draw();
} catch (error) { toast(error.message, true); }
