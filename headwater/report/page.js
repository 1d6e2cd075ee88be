"use strict";
// Drawings come alive when they are about to be seen; without this script they stay what they are: pictures.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const tip = document.body.appendChild(document.createElement("dl"));
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // the numbers stand in each chart's label

  const entry = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text; // text of a run is never markup
    return element;
  };

  function tell(handler, event, item, value) {
    tip.hidden = !value;
    if (!value) return;
    tip.replaceChildren(...Object.entries(value).flatMap(([name, said]) => [entry("dt", name), entry("dd", said)]));
    const { clientX: x, clientY: y } = event.touches ? event.changedTouches[0] : event;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, x + 14 + width > innerWidth ? x - width - 14 : x + 14)}px`;
    tip.style.top = `${Math.max(4, y + 14 + height > innerHeight ? y - height - 14 : y + 14)}px`;
  }

  // Specifications hold their data: whatever would be fetched is a mistake.
  const loader = { load: refused, sanitize: refused, http: refused, file: refused };
  async function refused(address) {
    throw new Error(`a drawing asked for ${address}`);
  }

  async function enliven(chart) {
    const drawn = document.createElement("div");
    const options = { actions: false, ast: true, defaultStyle: false, loader, renderer: "svg", tooltip: tell };
    await vegaEmbed(drawn, specs[chart.dataset.chart], options);
    chart.replaceChildren(drawn);
    chart.classList.add("live");
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries)
        if (isIntersecting) {
          seen.unobserve(target);
          enliven(target).catch((error) => console.error(error)); // the picture stays
        }
    },
    { rootMargin: "300px" },
  );
  for (const chart of document.querySelectorAll(".chart")) seen.observe(chart);
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });
})();
