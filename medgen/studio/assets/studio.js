// What the studio's page does by itself: dark mode, overlays, live regions. Sends nothing.
(() => {
  const LIVE = ["status"];

  function darken(dark) {
    document.body.classList.toggle("dark", dark);
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-pressed", String(dark));
  }

  document.addEventListener("click", (event) => {
    if (event.target.id !== "theme") return;
    const dark = !document.body.classList.contains("dark");
    localStorage.setItem("medgen-theme", dark ? "dark" : "light");
    darken(dark);
  });

  // Overlays are loaded when they are first asked for.
  document.addEventListener("change", (event) => {
    if (!event.target.matches("input.overlays")) return;
    const images = event.target.closest(".prose, [id]").querySelectorAll("img.overlay");
    for (const image of images) {
      if (!image.src) image.src = image.dataset.src;
      image.hidden = !event.target.checked;
    }
  });

  function ready() {
    if (!document.getElementById("status")) return setTimeout(ready, 100);
    for (const id of LIVE) document.getElementById(id).setAttribute("aria-live", "polite");
    document.documentElement.lang = "en";
    const kept = localStorage.getItem("medgen-theme");
    darken(kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  }
  ready();
})();
