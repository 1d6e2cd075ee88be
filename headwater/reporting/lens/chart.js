// The scores of every prefix as steps, one panel a reading; who spoke, as a strip beneath; and where the cut stands.

const ROOM = { left: 46, right: 62, top: 8, bottom: 18, strip: 7 };

function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

// `view`: lines [{name, ends, texts, length, along, kept, scores, share}], readings, share (where the cut stands, from
// 0 to 1) and last (what stands at the axis's end). `along` says where a cut begins to keep so many tokens.
function draw(frame, view) {
  const width = frame.clientWidth;
  const narrow = window.matchMedia("(max-width: 56rem)").matches;
  const panels = Math.max(1, view.readings.length);
  const named = panels > 1 && view.lines.length > 1; // else the names at the curves' ends say what they are
  const high = Math.round((narrow ? 66 : 84) * (panels > 1 ? 0.75 : 1)) + (named ? 12 : 0);
  const right = width - ROOM.right;
  const x = (part) => ROOM.left + part * (right - ROOM.left);
  const spoken = view.lines.filter((line) => line.share);
  const foot = panels * high + ROOM.strip * spoken.length;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${foot + ROOM.bottom}`, "aria-hidden": "true" });
  const dots = [];
  for (let panel = 0; panel < panels; panel += 1) {
    const box = { top: panel * high + ROOM.top + (named ? 12 : 0), bottom: (panel + 1) * high, x };
    picture.append(svg("line", { class: "axis", x1: x(0), x2: x(1), y1: box.bottom, y2: box.bottom }));
    if (view.readings.length) dots.push(...curves(picture, view, panel, box));
    else bars(picture, view.lines, box);
  }
  spoken.forEach((line, i) => strip(picture, line, { x, top: panels * high + 2 + i * ROOM.strip }));
  picture.append(svg("text", { x: x(0), y: foot + 14 }, "0"));
  picture.append(svg("text", { x: x(1), y: foot + 14, "text-anchor": "end" }, view.last));
  const at = x(view.share);
  picture.append(svg("rect", { class: "gone", x: at, y: 0, width: Math.max(0, right - at + 1), height: foot }));
  picture.append(svg("line", { class: "handle", x1: at, x2: at, y1: 0, y2: foot }));
  for (const [cy, r] of [[foot, 6], ...dots.map((y) => [y, 3.5])]) picture.append(svg("circle", { cx: at, cy, r }));
  frame.replaceChildren(picture);
}

function curves(picture, view, panel, box) {
  const { x, bottom, top } = box;
  const reading = view.readings[panel];
  // The last token stands for the whole response, with what closes the turn.
  const whole = view.lines.map((line) => {
    const scores = line.scores[panel];
    return [...scores.slice(0, line.texts - 1), scores.at(-1)];
  });
  const all = whole.flat().concat(reading.sums ? [0] : []).filter((score) => score !== null);
  const low = all.reduce((a, b) => Math.min(a, b)), high = all.reduce((a, b) => Math.max(a, b));
  const y = (score) => bottom - (high > low ? (score - low) / (high - low) : 0.5) * (bottom - top);
  if (low <= 0 && high >= 0) picture.append(svg("line", { class: "axis", x1: x(0), x2: x(1), y1: y(0), y2: y(0) }));
  for (const [score, place] of [[high, top + 6], [low, bottom]]) {
    picture.append(svg("text", { x: ROOM.left - 6, y: place, "text-anchor": "end" }, number(score, true)));
  }
  const ends = view.lines.map((line, s) => {
    let path = "", reached = null;
    whole[s].forEach((score, i) => {
      const from = line.along(line.ends[i]);
      if (score === null || (from > 1 && path)) return;
      path += path ? `H${x(from)}V${y(score)}` : `M${x(i ? from : 0)} ${y(score)}`;
      reached = score;
    });
    picture.append(svg("path", { class: `curve ${line.name}`, d: `${path}H${x(1)}` }));
    return y(reached);
  });
  label(picture, view.lines.length > 1 ? view.lines.map((line) => line.name) : [reading.score], view.lines, ends, box);
  if (view.readings.length > 1 && view.lines.length > 1) {
    const whose = reading.model && ` of ${reading.model}`;
    picture.append(svg("text", { x: x(0), y: top - 4 }, `${reading.score}${whose}`));
  }
  return view.lines.map((line) => line.scores[panel][line.kept - 1]).filter((score) => score !== null).map(y);
}

// Names stand at the curves' ends, and 12 apart where the ends are closer.
function label(picture, texts, lines, ends, { x, top, bottom }) {
  const apart = texts.length > 1 ? Math.max(6, Math.abs(ends[0] - ends.at(-1)) / 2) : 0;
  // Moved as a pair where one would leave the panel, so that the two never meet at its edge.
  const middle = Math.min(bottom - apart, Math.max(top + 2 + apart, (ends[0] + ends.at(-1)) / 2));
  const above = ends[0] <= ends.at(-1) ? -1 : 1;
  texts.forEach((text, s) => {
    const wanted = texts.length > 1 ? middle + (s ? -above : above) * apart : middle;
    const y = Math.min(bottom, Math.max(top + 2, wanted)) + 4;
    picture.append(svg("text", { class: lines[s].name, x: x(1) + 6, y }, text));
  });
}

function bars(picture, lines, { x, top, bottom }) {
  lines.forEach((line, s) => {
    const y = top + ((s + 0.5) * (bottom - top)) / lines.length;
    const end = Math.min(1, line.along(line.length));
    picture.append(svg("line", { class: line.name, x1: x(0), x2: x(end), y1: y, y2: y, "stroke-width": 6 }));
    picture.append(svg("text", { class: line.name, x: x(1) + 6, y: y + 4 }, line.name));
  });
}

// Who said which token: one rectangle for tokens in a row that are said alike.
function strip(picture, line, { x, top }) {
  let from = 0;
  line.share.forEach((share, i) => {
    if (i + 1 < line.share.length && speaker(line.share[i + 1]) === speaker(share)) return;
    const [start, end] = [from ? line.along(line.ends[from - 1]) : 0, line.along(line.ends[i])];
    const width = Math.max(0, x(Math.min(1, end)) - x(Math.min(1, start)));
    picture.append(svg("rect", { class: `by-${speaker(share)}`, x: x(Math.min(1, start)), y: top, width, height: 5 }));
    from = i + 1;
  });
  picture.append(svg("text", { x: x(1) + 6, y: top + 6 }, "said by"));
}

const speaker = (share) => (share >= 1 ? "policy" : share <= 0 ? "reference" : "both");
