// The list of the Runs tab: a click on a run opens it and marks it.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-run]");
  if (!button) return;
  for (const other of element.querySelectorAll("[data-run]")) other.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
  trigger("select", { run: button.dataset.run });
});
