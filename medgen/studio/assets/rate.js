// The stage of the Rate tab: keys and clicks become one event that names what was shown.
const shown = () => element.querySelector("[data-item]");
const PATIENCE = 5000; // ms after which an answer that did not arrive may be given again
let sentAt = -Infinity;

function send(value) {
  if (performance.now() - sentAt < PATIENCE) return; // an answer is under way
  sentAt = performance.now();
  const stage = shown();
  const item = stage ? stage.dataset.item : "";
  const flags = {};
  for (const group of element.querySelectorAll("[data-finding]")) {
    const chosen = group.querySelector("input:checked");
    if (chosen) flags[group.dataset.finding] = chosen.value;
  }
  const comment = element.querySelector("textarea");
  trigger("submit", { item, value, flags, comment: comment ? comment.value : "" });
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-answer]");
  if (button) send(button.dataset.answer);
});

const KEYS = {
  rating: { 1: "1", 2: "2", 3: "3", 4: "4", 5: "5" },
  pair: { ArrowLeft: "left", ArrowRight: "right" },
  real: { r: "real", s: "synthetic" },
};

function typing(target) {
  return target.matches("textarea, select, [contenteditable], input:not([type=radio])");
}

document.addEventListener("keydown", (event) => {
  if (!element.offsetParent || event.ctrlKey || event.altKey || event.metaKey) return;
  const target = event.target;
  if (typing(target)) {
    if (event.key === "Escape" && element.contains(target)) element.querySelector("[data-focus]").focus();
    return;
  }
  const arrow = event.key.startsWith("Arrow");
  if (arrow && target.matches("input, [role=tab], [role=radio]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const stage = shown();
  let value = stage ? (KEYS[stage.dataset.task][key] ?? { 0: "skip" }[key]) : undefined;
  if (key === "u") value = element.querySelector('[data-answer="back"]') ? "back" : undefined;
  if (value) send(value);
  else if (stage && key === "f") element.querySelector(".flags input")?.focus();
  else if (stage && key === "c") element.querySelector("textarea").focus();
  else if (stage && key === "?") element.querySelector(".help").toggleAttribute("open");
  else return;
  event.preventDefault();
});

// Gradio patches the page in place, so what was typed for one picture would stay for the next.
let cleared = null;
function clear() {
  const item = shown()?.dataset.item;
  if (item === cleared) return; // the same picture again, with an error: keep what was typed
  cleared = item;
  for (const comment of element.querySelectorAll("textarea")) comment.value = "";
  for (const flag of element.querySelectorAll(".flags input")) flag.checked = false;
}

watch("value", () => {
  sentAt = -Infinity;
  clear();
  element.querySelector("[data-focus]")?.focus({ preventScroll: true });
});
