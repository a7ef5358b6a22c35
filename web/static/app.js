// A stand-in: shows what the event stream brings.
const rack = document.getElementById("rack");
const stream = new EventSource("/events");
for (const kind of ["snapshot", "delta"]) {
  stream.addEventListener(kind, (event) => { if (rack) rack.textContent = `${kind} ${event.lastEventId}\n${event.data}`; });
}
