// Labels for the ports, to print: each with a code that leads to the Pi's page.
import { api, attempt, h, picture, show } from "./app.js";

async function begin() {
  Object.assign(picture, await api("GET", "/picture"));
  const all = picture.rack.switches.flatMap((each) => each.ports.filter((port) => picture.pis[port.mac]).map((port) => ({ each, port, pi: picture.pis[port.mac] })));
  show(h("div", { class: "bar" }, h("button", { class: "main", onclick: () => print() }, "Print"), h("span", { class: "muted" }, `${all.length} labels`)),
    h("div", { class: "labels" }, all.map(({ each, port, pi }) => h("div", { class: "label" }, h("img", { src: `/pi/${pi.mac}/code.svg`, alt: "", width: 83, height: 83 }), h("div", {}, h("b", {}, pi.name), h("div", {}, `${each.name} / ${port.port}`), h("div", { class: "mono" }, pi.address), h("div", { class: "mono" }, pi.mac))))));
}

attempt(begin)();
