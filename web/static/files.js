// What CONFIG and HOSTS.CSV share: trying a change as it is typed, showing the difference, applying it, going back.
import { ApiError, api, ask, attempt, clock, diff, h, toast } from "./app.js";

/** An editor of one file. `change()` gives the body of the change, null for none; `mark(problems)` shows what is wrong. */
export class Editor {
  constructor(path, change, mark, reload) {
    Object.assign(this, { path, change, mark, reload, base: "", number: 0, problems: [] });
    this.review = h("button", { class: "main", onclick: attempt(() => this.compare()) }, "Review changes");
    this.status = h("span", { role: "status", class: "muted" });
    this.bar = h("div", { class: "bar sticky" }, this.review, this.status);
    this.below = h("div");
    addEventListener("beforeunload", (event) => { if (this.change()) event.preventDefault(); });
  }

  /** Try what is typed, a moment after the last key. */
  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check().catch((error) => this.say(error.message, true)), 300);
  }

  say(text, bad = false) { this.status.textContent = text; this.status.className = bad ? "problem" : "muted"; }

  async check() {
    const number = ++this.number;
    const body = this.change();
    if (!body) { this.mark([]); this.say(""); return null; }
    let draft;
    try { draft = await api("POST", `${this.path}/check`, body); } catch (error) { if (number === this.number) { this.mark([]); this.say(error.message, true); } return null; }
    if (number !== this.number) return null;
    this.problems = draft.problems;
    this.mark(draft.problems);
    this.say(draft.problems.length ? `${draft.problems.length} ${draft.problems.length === 1 ? "thing" : "things"} to mend before it can be applied` : draft.diff ? "changed, not yet applied" : "", draft.problems.length > 0);
    return draft;
  }

  async compare() {
    clearTimeout(this.timer); // else that check would overtake this one
    const draft = await this.check();
    if (!draft || !draft.diff) { this.below.replaceChildren(); if (draft) this.say("nothing is changed"); return; }
    const apply = h("button", { class: "main", disabled: draft.problems.length > 0, onclick: attempt(() => this.apply(draft.base)) }, "Apply changes");
    this.below.replaceChildren(h("section", { class: "card" }, h("h2", {}, "The difference"), diff(draft.diff), draft.problems.length ? problemList(draft.problems) : null, h("div", { class: "bar" }, apply, h("button", { onclick: () => this.below.replaceChildren() }, "Not yet"))));
    this.below.scrollIntoView({ behavior: "smooth", block: "nearest" });
    apply.focus();
  }

  async apply(seen) {
    if (seen !== this.base) { this.conflict(); return; }
    try {
      const done = await api("PUT", this.path, { ...this.change(), base: this.base });
      toast(done.applied === "now" ? "applied" : "written; the server takes it over within a moment");
      await this.reload();
    } catch (error) {
      if (error instanceof ApiError && error.status === 409 && error.message.includes("meanwhile")) this.conflict();
      else if (error instanceof ApiError && error.problems.length) { this.mark(error.problems); this.say(error.message, true); }
      else throw error;
    }
  }

  conflict() {
    this.below.replaceChildren(h("section", { class: "card", role: "alert" }, h("h2", {}, "The file was changed by somebody else meanwhile"), h("p", {}, "Nothing was written. Load the file as it is now; what you typed here is lost then."), h("button", { class: "main", onclick: attempt(() => this.reload()) }, "Load it")));
  }

  async versions() {
    const found = await api("GET", `${this.path}/versions`);
    if (!found.length) return h("p", { class: "muted" }, "No earlier version yet: each change made here keeps the one before.");
    return h("ul", {}, found.slice(0, 20).map((each) => h("li", {}, `until ${clock(each.when)}, replaced by ${each.who} `, h("button", { onclick: attempt(async () => {
      const old = await api("GET", `${this.path}/versions/${each.id}`);
      this.below.replaceChildren(h("section", { class: "card" }, h("h2", {}, "Going back would change"), old.diff ? diff(old.diff) : h("p", {}, "nothing"), problemList(old.problems), h("button", { class: "main", disabled: old.problems.length > 0 || !old.diff, onclick: attempt(async () => {
        if (!(await ask("Go back to that version?", "The file as it is now is kept as a version, too.", "Go back"))) return;
        await api("POST", `${this.path}/versions/${each.id}/restore`, { base: this.base });
        toast("restored");
        await this.reload();
      }) }, "Go back to it")));
      this.below.scrollIntoView({ behavior: "smooth", block: "nearest" });
    }) }, "Show"))));
  }
}

export function problemList(problems) {
  if (!problems.length) return null;
  return h("ul", { class: "problem" }, problems.map((each) => h("li", {}, `${each.line ? `line ${each.line}: ` : ""}${each.key ? `${each.key}: ` : ""}${each.text}`)));
}

let ids = 0;
/** A label, an input, and a place for what is wrong with it. */
export function field(label, input, help = "") {
  const id = `f${++ids}`;
  input.id = id;
  const problem = h("p", { class: "problem", id: `${id}p`, hidden: true });
  input.setAttribute("aria-describedby", `${id}p`);
  return { input, node: h("div", {}, h("label", { for: id }, label), input, help ? h("p", { class: "help" }, help) : null, problem), mark(text) { problem.textContent = text; problem.hidden = !text; if (text) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid"); } };
}
