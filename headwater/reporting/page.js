"use strict";
// Drawings come alive when they are about to be seen; without this script they stay what they are: pictures.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);

  // Tables sort by a column: numbers by value, everything else by its text.
  const valueOf = (row, column) => row.cells[column].firstChild?.textContent.trim() ?? "";
  const numeric = (text) => parseFloat(text.replace("−", "-").replace(/[\u202f,]/g, ""));
  function sortBy(head, column) {
    const body = head.closest("table").tBodies[0];
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const keyed = [...body.rows].map((row) => ({ row, text: valueOf(row, column) }));
    keyed.sort(({ text: a }, { text: b }) => {
      const [x, y] = [numeric(a), numeric(b)];
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || a.localeCompare(b);
      return descending ? y - x : x - y;
    });
    if (descending && keyed.every(({ text }) => isNaN(numeric(text)))) keyed.reverse();
    for (const { row } of keyed) row.classList.remove("again");
    body.append(...keyed.map(({ row }) => row));
  }
  for (const head of document.querySelectorAll(".sortable thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(head, head.cellIndex));
    head.append(button);
  }

  // An entry of the contents opens the fold that it names.
  const unfold = () => {
    const named = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (named instanceof HTMLDetailsElement) named.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  if (!Object.keys(specs).length) return;

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
    const spec = { ...specs[chart.dataset.chart], width: chart.clientWidth }; // text keeps its size at every width
    const { view } = await vegaEmbed(drawn, spec, options);
    chart.replaceChildren(drawn);
    chart.classList.add("live");
    let width = chart.clientWidth;
    new ResizeObserver(() => {
      if (chart.clientWidth === width || !chart.clientWidth) return;
      width = chart.clientWidth;
      view.width(width).runAsync();
    }).observe(chart);
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
