// What htmx does not do: a stream of steps, a run as it goes, times in the reader's zone, the preview's choices.
"use strict";

// what a provider led back with is used up, and is nothing for the browser's history
if (["/login/callback", "/oauth/callback"].includes(location.pathname)) history.replaceState(null, "", location.pathname);

function localTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const when = new Date(each.dateTime);
    if (!isNaN(when)) {
      each.textContent = when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
      each.title = each.dateTime;
    }
  }
}

async function stream(button) {
  const into = document.getElementById(button.dataset.into);
  into.replaceChildren();
  button.disabled = true;
  try {
    const body = new URLSearchParams(new FormData(document.getElementById("source")));
    const answer = await fetch(button.dataset.stream, { method: "POST", body });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      rest += value || "";
      const end = rest.lastIndexOf("\n");
      if (end >= 0) {
        into.insertAdjacentHTML("beforeend", rest.slice(0, end));
        rest = rest.slice(end + 1);
      }
      if (done) break;
    }
  } catch {
    into.insertAdjacentHTML("beforeend", '<li class="step failed"><b>server</b> It did not answer: is it still running?</li>');
  } finally {
    button.disabled = false;
    into.scrollIntoView({ block: "nearest" });
  }
}

function followRun(list) {
  const events = new EventSource(list.dataset.events);
  events.addEventListener("message", (event) => {
    const item = document.createElement("li");
    item.textContent = event.data;
    list.append(item);
  });
  events.addEventListener("end", () => {
    events.close();
    htmx.ajax("GET", list.dataset.outcome, "#outcome");
  });
}

function value(name) {
  return document.getElementById(name);
}

document.addEventListener("click", (event) => {
  const streaming = event.target.closest("[data-stream]");
  if (streaming) stream(streaming);
  const cursor = event.target.closest("[data-cursor]");
  if (cursor && value("cursor_column")) {
    value("cursor_column").value = cursor.dataset.cursor;
    if (value("cursor_type") && !value("cursor_type").value) value("cursor_type").value = "timestamp";
    value("cursor_column").focus();
  }
});

document.addEventListener("change", (event) => {
  const mapped = event.target.closest("[data-map]");
  if (mapped && mapped.value) {
    const mapping = value("mapping");
    const others = mapping.value.split("\n").filter((line) => line.trim() && line.split(":")[0].trim() !== mapped.value);
    mapping.value = [...others, `${mapped.value}: ${JSON.stringify(mapped.dataset.map)}`].join("\n");
    mapping.closest("details")?.setAttribute("open", "");
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  localTimes(event.target);
  const fields = document.getElementById("fields");
  if (event.target.id === "preview" && fields) {
    fields.replaceChildren(...[...event.target.querySelectorAll("[data-field]")].map((each) => new Option(each.dataset.field)));
  }
});

localTimes(document);
for (const list of document.querySelectorAll("[data-events]")) followRun(list);
