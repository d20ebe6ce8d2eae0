// Shared by the pages of a sweep and of a run: the data, elements, numbers, colours, the tooltip, commands to copy.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// Make an element. Text always becomes a text node, so the data cannot inject HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

// ---- numbers --------------------------------------------------------------------------------------------------------

const isNumber = (value) => typeof value === "number";
const count = (number) => number.toLocaleString("en-US");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

function shortNumber(value, digits = 4) {
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 1).replace(/\.?0+e\+?/, "e");
  return value.toPrecision(digits);
}

function shortValue(value) {
  if (value === null) return "null";
  if (!isNumber(value)) return String(value);
  return Number.isInteger(value) ? String(value) : shortNumber(Number(value.toPrecision(6)), 6).replace(/(\.\d*?)0+($|e)/, "$1$2").replace(/\.($|e)/, "$1");
}

const withDeviation = (mean, deviation) =>
  mean === null ? "" : shortNumber(mean) + (isNumber(deviation) ? ` ± ${shortNumber(deviation, 2)}` : "");

function shortTime(seconds) {
  if (seconds < 60) return `${seconds < 9.95 ? seconds.toFixed(1) : seconds.toFixed(0)} s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = `${Math.floor(whole / 60) % 60}`;
  return whole < 3600 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(whole / 3600)}:${two(minutes)}:${two(whole % 60)}`;
}

function bounds(values) {
  let least = Infinity;
  let most = -Infinity;
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return least <= most ? [least, most] : null;
}

// Whether a logarithmic axis is better: positive values that span at least a factor of ten, as learning rates do.
const isWide = (values) => values.length > 1 && values.every((each) => each > 0) && Math.max(...values) / Math.min(...values) >= 9.99;

// ---- colours --------------------------------------------------------------------------------------------------------

const PALETTE = ["#4269d0", "#e8890c", "#3ca951", "#ff725c", "#a463f2", "#12a5b8", "#e0559a", "#9c6b4e", "#7a9a01", "#8a8f98"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const theme = {};

function readTheme() {
  for (const name of ["text", "soft", "line", "faint", "accent", "best", "worst", "card"]) theme[name] = css(`--${name}`);
}

function mixColours(first, second, share) {
  const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const [a, b] = [parts(first), parts(second)];
  return `rgb(${a.map((each, at) => Math.round(each + share * (b[at] - each))).join(",")})`;
}

// ---- the tooltip and commands -----------------------------------------------------------------------------------------

// The tooltip beside the pointer.
const note = make("div", { class: "note", hidden: true, role: "status" });
function showNote(event, ...content) {
  note.hidden = content.length === 0;
  if (note.hidden) return;
  replace(note, ...content);
  const width = note.offsetWidth;
  const left = event.clientX + 14 + width > innerWidth ? Math.max(4, event.clientX - 14 - width) : event.clientX + 14;
  note.style.left = `${left}px`;
  note.style.top = `${Math.min(event.clientY + 14, innerHeight - note.offsetHeight - 4)}px`;
}

function command(text) {
  const code = make("code", {}, text);
  const button = make("button", { class: "copy", "aria-label": "copy the command", onclick: () => copy(code, button) }, "Copy");
  return make("div", { class: "command" }, code, button);
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code); // without access to the clipboard, select the command for the user to copy
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

// ---- light, dark and paper ------------------------------------------------------------------------------------------

// Redraw when the browser's colours change. When printed the page is light, even if the screen is dark.
function watchTheme(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readTheme();
    redraw();
  });
  const paper = (isPaper) => () => {
    document.documentElement.classList.toggle("paper", isPaper);
    readTheme();
    redraw();
  };
  addEventListener("beforeprint", paper(true));
  addEventListener("afterprint", paper(false));
}
