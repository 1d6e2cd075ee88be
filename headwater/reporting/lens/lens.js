// One entry in view: its tokens coloured, its scores drawn, a cut to drag. What the data says enters as text alone.

function start(host) {
  const root = host.shadowRoot ?? document;
  const $ = (id) => root.getElementById(id);
  const lens = JSON.parse($("data").textContent);
  const SIDES = lens.sides;
  const scored = lens.readings.length > 0;
  const cut = { mode: lens.mode, at: lens.at }; // at: tokens, or thousandths of a length
  let order = []; // indices of the entries that are listed, as they are listed
  let current = 0;
  let by = 0; // the reading that colours and sorts

  // ---- Entries ----

  function measure(side) {
    let tokens = 0;
    side.ends = side.pieces.map((_, i) => (tokens += side.several[i] ?? 1));
    side.texts = side.pieces.length - side.closing;
    side.length = side.texts ? side.ends[side.texts - 1] : 0;
  }

  function shared(entry) {
    if (SIDES.length < 2) return 0;
    const [a, b] = SIDES.map((name) => entry[name]);
    const most = Math.min(a.texts, b.texts);
    let count = 0;
    while (count < most && a.pieces[count] === b.pieces[count]) count += 1;
    return count;
  }

  const called = (entry) => lens.name + entry.link;
  const anchor = (entry) => encodeURIComponent(called(entry)); // as it stands in the page's address
  const places = new Map();

  // Programs that pass links on write them with more or fewer characters escaped.
  function address() {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      return location.hash.slice(1);
    }
  }

  function add(entry) {
    SIDES.forEach((name) => measure(entry[name]));
    entry.opening = shared(entry);
    places.set(called(entry), places.size);
  }

  lens.entries.forEach(add);
  const lengths = (entry) => SIDES.map((name) => entry[name].length);
  const longest = (entry) => Math.max(...lengths(entry));
  const shortest = (entry) => Math.min(...lengths(entry));

  // What a share is a share of, in tokens.
  const base = (entry, side) => ({ own: side.length, equal: shortest(entry), shared: longest(entry) })[cut.mode];

  // How many pieces a cut keeps: ⌊share × length⌋ tokens, at least one, and all those of a character. A response that
  // is kept whole keeps what closes its turn.
  function kept(entry, side) {
    const wanted = cut.mode === "tokens" ? cut.at : Math.floor((cut.at * base(entry, side)) / 1000);
    const tokens = Math.max(1, wanted);
    if (tokens >= side.length) return side.pieces.length;
    return side.ends.findIndex((end) => end >= tokens) + 1;
  }

  const most = (entry) => (cut.mode === "tokens" ? longest(entry) : 1000);
  const tokensOf = (side, pieces) => Math.min(side.length, side.ends[pieces - 1]);

  // ---- The list ----

  const total = (entry) => lengths(entry).reduce((a, b) => a + b);
  const margin = (entry) => entry.margins[by];
  const score = (entry) => entry[SIDES[0]].scores[by].at(-1);
  const said = (entry) => {
    const { share, several } = entry[SIDES[0]];
    const counts = share.map((_, i) => several[i] ?? 1);
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    return sum(share.map((value, i) => value * counts[i])) / sum(counts);
  };

  const KEYS_OF = {
    order: (i) => i, margin: (_, entry) => -margin(entry), error: (_, entry) => margin(entry),
    depth: (_, entry) => -(entry.depths[by] ?? 0), total: (_, entry) => -score(entry),
    share: (_, entry) => -said(entry), length: (_, entry) => -total(entry),
  };

  function sorted(indices, name) {
    const entry = (i) => lens.entries[i];
    if (name === "id") return indices.sort((a, b) => entry(a).id.localeCompare(entry(b).id, "en", { numeric: true }));
    const keys = new Map(indices.map((i) => [i, KEYS_OF[name](i, entry(i))]));
    return indices.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
  }

  function words(entry) {
    const texts = () => [...entry.prompt.map(([, text]) => text), ...SIDES.map((name) => entry[name].pieces.join(""))];
    return (entry.words ??= [entry.id, ...texts()].join("\n").toLowerCase());
  }

  function list() {
    const wanted = $("search").value.toLowerCase();
    const found = [...lens.entries.keys()].filter((i) => !wanted || words(lens.entries[i]).includes(wanted));
    order = sorted(found, $("sort").value);
    $("list").replaceChildren(...order.map(line));
    $("count").textContent = wanted ? `${order.length} of ${lens.entries.length}` : `${lens.entries.length}`;
    mark();
  }

  // What a reader knows a pair by: the beginning of the last question; its id stands beside it.
  function named(entry) {
    const question = entry.prompt.findLast(([role]) => role === "user") ?? entry.prompt.at(-1);
    const text = question?.[1].replace(/\s+/g, " ").trim() ?? "";
    return text.length > 120 ? `${text.slice(0, 120)}…` : text || entry.id;
  }

  function line(i) {
    const entry = lens.entries[i];
    const link = make("a", { href: `#${anchor(entry)}` });
    const numbers = make("span", { class: "numbers" });
    if (scored && SIDES.length > 1) {
      const wrong = margin(entry) < 0;
      numbers.classList.toggle("wrong", wrong);
      numbers.append(make("b", {}, number(margin(entry), true)), wrong ? " wrong" : "");
      numbers.append(entry.depths[by] ? ` · settles ${entry.depths[by]} %` : " · a tie", " · ");
    } else if (scored) {
      numbers.append(make("b", {}, number(score(entry))), ` ${lens.readings[by].score} · `);
    }
    numbers.append(`${lengths(entry).join(" / ")} tokens · `, make("span", { class: "id", dir: "auto" }, entry.id));
    link.append(make("span", { class: "question", dir: "auto" }), numbers);
    write(link.firstChild, named(entry));
    const item = make("li");
    item.append(link);
    return item;
  }

  function mark() {
    $("list").querySelector("[aria-current]")?.removeAttribute("aria-current");
    const link = $("list").children[order.indexOf(current)]?.firstChild;
    if (!link) return;
    link.setAttribute("aria-current", "true");
    const [box, row] = [$("list").getBoundingClientRect(), link.getBoundingClientRect()];
    if (row.top < box.top || row.bottom > box.bottom) $("list").scrollTop += row.top - box.top - box.height / 3;
  }

  // ---- The entry in view ----

  function show() {
    $("view").hidden = $("all").hidden = !lens.entries.length;
    if (!lens.entries.length) return;
    const entry = lens.entries[current];
    write($("name"), named(entry));
    write($("id"), entry.id);
    $("name").href = `#${anchor(entry)}`;
    const place = order.indexOf(current);
    $("place").textContent = place < 0 ? "not among those found" : `${place + 1} of ${order.length}`;
    $("prompt").replaceChildren(...entry.prompt.map(([role, text]) => {
      const paragraph = make("p", { dir: "auto" });
      paragraph.append(make("b", {}, role));
      put(paragraph, text);
      return paragraph;
    }));
    $("prompt").scrollTop = $("prompt").scrollHeight; // the question that is answered stands last
    if (scored) {
      const { scale } = lens.readings[by];
      $("low").textContent = number(-scale);
      $("high").textContent = number(scale, true);
    }
    for (const name of SIDES) respond(entry, name);
    $("readout").textContent = "";
    mark();
    move();
  }

  function respond(entry, name) {
    const side = entry[name];
    const opening = entry.opening ? tokensOf(side, entry.opening) : 0;
    $(`${name}-size`).textContent = `${side.length} tokens${opening ? `, the first ${opening} in both` : ""}`;
    const pieces = side.pieces.map((text, i) => {
      const span = make("span", { "data-place": i });
      span.className = i >= side.texts ? "closing" : side.several[i] === 0 ? "unread" : i < entry.opening ? "opening" : "";
      if (side.share) span.classList.add(`by-${speaker(side.share[i])}`);
      const added = increment(side, i, by);
      if (added) {
        span.classList.add(added > 0 ? "up" : "down");
        span.style.setProperty("--v", Math.min(1, Math.abs(added) / (lens.readings[by].scale || 1)));
      }
      put(span, text);
      return span;
    });
    const unread = (text) => (text ? [make("span", { class: "unread" }, text)] : []);
    $(name).replaceChildren(...unread(side.before), ...pieces, ...unread(side.after));
  }

  // What a piece adds to the score; a reward model says nothing of an empty response, so nothing of the first piece.
  function increment(side, i, reading) {
    if (!scored || (i === 0 && !lens.readings[reading].sums)) return null;
    const [before, after] = [i ? side.scores[reading][i - 1] : 0, side.scores[reading][i]];
    return before === null || after === null ? null : after - before;
  }

  function readout(name, i) {
    const side = lens.entries[current][name];
    const first = i ? side.ends[i - 1] + 1 : 1;
    const counted = side.ends[i] > first ? `tokens ${first} to ${side.ends[i]}` : `token ${first}`;
    const tokens = side.several[i] === 0 ? "not of the assistant" : counted;
    const speaks = side.share ? [{ policy: "said by the policy", reference: "said by the reference" }[
      speaker(side.share[i])] ?? `${Math.round(100 * side.share[i])} % of it said by the policy`] : [];
    const scores = lens.readings.flatMap((reading, place) => {
      const added = increment(side, i, place);
      const of = reading.model && lens.readings.length > 1 ? ` of ${reading.model}` : "";
      const adds = added === null ? [] : [`adds ${number(added, true)}`];
      return [...adds, `${reading.score}${of} ${number(side.scores[place][i], true)}`];
    });
    write($("readout"), [`${name}, ${tokens}`, ...speaks, ...scores].join(" · "));
  }

  // ---- The cut ----

  function move(at = cut.at) {
    if (!lens.entries.length) return;
    const entry = lens.entries[current];
    const end = most(entry);
    cut.at = at;
    const shown = Math.max(1, Math.min(end, at));
    const counts = SIDES.map((name) => kept(entry, entry[name]));
    SIDES.forEach((name, s) => {
      for (const span of $(name).querySelectorAll("[data-place]")) {
        span.classList.toggle("dropped", span.dataset.place >= counts[s]);
        const edge = Number(span.dataset.place) === counts[s] - 1 && counts[s] < entry[name].pieces.length;
        span.classList.toggle("edge", edge);
      }
    });
    const whose = SIDES.length > 1 ? "of each response" : "of the response";
    const of = { own: whose, equal: "of the shorter one", shared: "of the longer one" }[cut.mode];
    const where = of ? `${percent(shown)} ${of}` : `${shown} tokens`;
    $("at").textContent = of ? percent(shown) : where;
    const rows = table(entry, counts);
    $("cut").setAttribute("aria-valuemin", 1);
    $("cut").setAttribute("aria-valuemax", end);
    $("cut").setAttribute("aria-valuenow", shown);
    $("cut").setAttribute("aria-valuetext", `${where}: ${rows.map((row) => row.join(" ")).join("; ")}`);
    const lines = SIDES.map((name, s) => ({
      ...entry[name], name, kept: counts[s], along: (tokens) => along(entry, entry[name], tokens),
    }));
    const last = cut.mode === "tokens" ? `${most(entry)} tokens` : "100 %";
    draw($("cut"), { lines, readings: lens.readings, share: shown / end, last });
  }

  function table(entry, counts) {
    const rows = SIDES.map((name, s) => {
      const side = entry[name];
      const scores = scored ? [side.scores[by][counts[s] - 1], side.scores[by].at(-1)] : [];
      return [name, `${tokensOf(side, counts[s])} of ${side.length}`, ...scores.map((each) => number(each, true))];
    });
    if (scored && SIDES.length > 1) {
      const [a, b] = SIDES.map((name) => entry[name].scores[by]);
      const less = (one, other) => (one === null || other === null ? null : one - other);
      const margins = [less(a[counts[0] - 1], b[counts[1] - 1]), less(a.at(-1), b.at(-1))];
      rows.push(["margin", "", ...margins.map((each) => number(each, true))]);
    }
    $("scores").replaceChildren(...rows.map((row) => {
      const tr = make("tr");
      tr.append(make("th", { scope: "row" }, row[0]), ...row.slice(1).map((text) => make("td", {}, text)));
      return tr;
    }));
    return rows;
  }

  // Where along the axis, from 0 to 1, a cut begins to keep so many tokens.
  const along = (entry, side, tokens) => tokens / (cut.mode === "tokens" ? most(entry) : base(entry, side));

  function drag(event) {
    const box = $("cut").getBoundingClientRect();
    const share = (event.clientX - box.left - ROOM.left) / (box.width - ROOM.left - ROOM.right);
    const end = most(lens.entries[current]);
    move(Math.round(Math.max(1, Math.min(end, share * end))));
  }

  // Cut behind a piece: the least position that keeps it.
  function cutBehind(name, i) {
    const entry = lens.entries[current], tokens = tokensOf(entry[name], i + 1);
    move(cut.mode === "tokens" ? tokens : Math.min(1000, Math.ceil((1000 * tokens) / base(entry, entry[name]))));
  }

  function step(steps) {
    const end = most(lens.entries[current]), size = cut.mode === "tokens" ? 1 : 10;
    move(Math.max(1, Math.min(end, Math.min(cut.at, end) + steps * size)));
  }

  function change(mode) {
    const entry = lens.entries[current], pieces = kept(entry, entry[SIDES[0]]);
    cut.mode = mode;
    cutBehind(SIDES[0], pieces - 1);
  }

  // ---- Getting about ----

  function go(i) {
    location.replace(`#${anchor(lens.entries[i])}`);
  }

  function turn(steps) {
    const place = order.indexOf(current);
    const wanted = place < 0 ? 0 : Math.max(0, Math.min(order.length - 1, place + steps));
    if (order.length) go(order[wanted]);
  }

  // Addresses that begin with another name are those of other parts of the page.
  function arrive() {
    const hash = address();
    const mine = hash !== "" && hash.startsWith(lens.name);
    current = places.get(hash) ?? current;
    show();
    if (mine && !places.has(hash)) write($("place"), `no ${SIDES.length > 1 ? "pair" : "response"} ${hash} on this page`);
    return mine;
  }

  async function copy() {
    const address = new URL(`#${anchor(lens.entries[current])}`, location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      $("place").textContent = "link copied";
    } catch { // not allowed here: the address is in the address bar
      go(current);
      $("place").textContent = "the address bar has the link";
    }
  }

  const KEYS = {
    j: () => turn(1), k: () => turn(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    "/": () => { $("all").open = true; $("search").focus(); },
  };
  const SLIDER = {
    ArrowUp: () => step(1), ArrowDown: () => step(-1), PageUp: () => step(10), PageDown: () => step(-10),
    Home: () => move(1), End: () => move(most(lens.entries[current])),
  };

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.target === $("search") && ["Escape", "Enter"].includes(event.key)) {
        if (event.key === "Escape") $("search").value = "";
        else if (order.length) go(order[0]);
        list();
        event.target.blur();
      }
      return;
    }
    const inList = $("list").contains(event.target) && { ArrowDown: () => turn(1), ArrowUp: () => turn(-1) }[event.key];
    const act = (event.target === $("cut") && SLIDER[event.key]) || inList || KEYS[event.key];
    if (!act || !lens.entries.length) return;
    event.preventDefault();
    act();
  });

  window.addEventListener("hashchange", () => {
    const inList = $("list").contains(root.activeElement);
    arrive();
    if (inList) $("list").querySelector("[aria-current]")?.focus({ preventScroll: true });
  });
  window.addEventListener("resize", () => move());
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("copy").addEventListener("click", copy);
  $("search").addEventListener("input", () => { list(); show(); });
  $("sort").addEventListener("change", () => { list(); show(); });
  $("by")?.addEventListener("change", () => { by = Number($("by").value); list(); show(); });
  $("mode").addEventListener("change", () => change($("mode").value));
  $("cut").addEventListener("pointerdown", (event) => {
    $("cut").setPointerCapture(event.pointerId);
    drag(event);
  });
  $("cut").addEventListener("pointermove", (event) => event.buttons && drag(event));
  for (const name of SIDES) {
    const over = (act) => (event) => {
      const piece = event.target.closest("[data-place]");
      if (piece) act(name, Number(piece.dataset.place));
    };
    $(name).addEventListener("pointerover", over(readout));
    $(name).addEventListener("click", over(cutBehind));
  }

  // ---- Live ----

  // A pair that was typed is read by the server's models, and stands in the list with the others.
  async function ask(event) {
    event.preventDefault();
    const asked = Object.fromEntries(new FormData($("typed")));
    const button = $("typed").querySelector("button");
    button.disabled = true;
    $("said").textContent = "reading …";
    try {
      const reply = await fetch("pair", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked),
      });
      const found = await reply.json();
      if (!reply.ok) throw new Error(found.error);
      take(found);
      $("said").textContent = "";
    } catch (error) {
      write($("said"), error.message);
    }
    button.disabled = false;
  }

  function take({ entry, scales }) {
    // The strongest colour of all that is shown: so that entries compare.
    lens.readings.forEach((reading, i) => { reading.scale = Math.max(reading.scale ?? 0, scales[i] ?? 0) || null; });
    let typed = 1;
    while (places.has(called({ link: `typed ${typed}` }))) typed += 1;
    entry.id = entry.link = `typed ${typed}`;
    add(entry);
    lens.entries.push(entry);
    $("search").value = "";
    list();
    if (address() === called(entry)) arrive();
    else go(lens.entries.length - 1);
    if (window.matchMedia("(max-width: 56rem)").matches) $("view").scrollIntoView(); // it lies below the form
  }

  $("typed")?.addEventListener("submit", ask);

  $("mode").value = cut.mode;
  $("all").open = !window.matchMedia("(max-width: 56rem)").matches;
  list();
  if (arrive() && host.shadowRoot) host.scrollIntoView();
}

for (const host of document.querySelectorAll(".lens")) start(host);
