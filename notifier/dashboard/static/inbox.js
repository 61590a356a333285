// Keeps the list up to date: the server tells when it changed, and renders it.
"use strict";

const rows = document.getElementById("rows");
const live = document.getElementById("live");
const prefix = rows.dataset.prefix;
let fetching = false;
let stale = false;

function show(words, state) {
  live.hidden = false;
  live.textContent = words;
  live.className = "live " + state;
}

async function refresh() {
  stale = true;
  if (fetching) return;
  fetching = true;
  try {
    while (stale) {
      stale = false;
      const response = await fetch(prefix + "/inbox/rows");
      if (response.ok) replace(await response.text());
    }
  } catch {
    show("not running", "off");
  } finally {
    fetching = false;
  }
}

function replace(html) {
  const focused = document.activeElement?.closest("#rows a")?.getAttribute("href");
  rows.innerHTML = html;
  for (const link of rows.querySelectorAll("a")) {
    if (link.getAttribute("href") === focused) link.focus({ preventScroll: true });
  }
}

const events = new EventSource(prefix + "/inbox/stream");
events.onopen = () => show("live", "on");
events.onmessage = refresh;
events.onerror = () => show("not running", "off");
