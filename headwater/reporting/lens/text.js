// Text of any kind as text: what a browser would act on or hide is shown by its name.

// Controls, bidi, zero width; joiners hold emoji and letters together.
const HIDDEN = /((?!\u200d)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}])/u;

function make(name, attributes = {}, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) put(element, text);
  return element;
}

function put(parent, text) {
  text.split(HIDDEN).forEach((part, place) => {
    if (place % 2 === 0) return part && parent.append(part);
    const mark = make("span", { class: { "\n": "line", "\t": "tab" }[part] ?? "mark" });
    const named = `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    mark.textContent = mark.className === "mark" ? named : part;
    return parent.append(mark);
  });
}

function write(element, text) {
  element.replaceChildren();
  put(element, text);
}

function number(value, signed = false) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text = size >= 0.001 ? size.toFixed(size >= 100 ? 1 : size >= 1 ? 2 : 3) : size.toExponential(1);
  return (value < 0 ? "−" : signed && value > 0 ? "+" : "") + text.replace("-", "−");
}

const percent = (thousandths) => `${thousandths / 10} %`;
