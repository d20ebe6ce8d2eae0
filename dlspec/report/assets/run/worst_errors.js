// The worst errors: the pictures, texts or rows that the network got wrong, the most confident first.

const MAX_SHOWN_TEXT = 400;

// Draw the errors of a target into `area`; with a cell of the confusion matrix only those of its classes.
function drawErrors(area, target, cell, clearCell) {
  const errors = cell ? target.errors.filter((each) => each.truth === target.classes[cell.truth] && each.prediction === target.classes[cell.prediction]) : target.errors;
  const about = cell
    ? make("p", { class: "soft" }, `True class ${target.classes[cell.truth]}, predicted ${target.classes[cell.prediction]}: ${plural(cell.rows, "row")}`, errors.length < cell.rows ? `, ${errors.length ? count(errors.length) : "none"} of them among the worst errors. ` : ". ", make("button", { onclick: clearCell }, "Show all"))
    : make("p", { class: "soft" }, describeErrors(target), `, ${count(errors.length)} shown.`);
  replace(area, about, errors.length ? showErrors(target, errors) : null);
}

function describeErrors(target) {
  if (isNumbers(target)) return "The largest errors";
  return target.errors.some(hasAnswer) ? "The wrong answers of which the network was the most certain" : "The samples of which the largest part is wrong";
}

const isNumbers = (target) => target.scatter.length > 0 || target.kind === "numbers" || target.kind === "value";

function showErrors(target, errors) {
  if (errors.some((each) => [...each.input, ...each.answers].some((cell) => cell.picture))) return make("div", { class: "cards" }, errors.map((error) => pictureCard(target, error)));
  const isText = errors.every((each) => each.input.length === 1) && errors.some((each) => each.input[0].text.length > 40);
  return isText ? make("ol", { class: "texts" }, errors.map((error) => textItem(target, error))) : errorTable(target, errors);
}

function nameOf(error) {
  return error.id || (error.row === null ? "" : `row ${error.row}`);
}

function answers(target, error) {
  if (!hasAnswer(error)) {
    const size = error.error === null ? "" : isNumbers(target) ? `error ${shortNumber(error.error)}` : `${percent(error.error)} wrong`;
    return make("b", { class: "wrong" }, size);
  }
  const sure = error.probability === null ? "" : ` ${percent(error.probability)}`;
  const size = error.probability === null && error.error !== null ? ` (error ${shortNumber(error.error)})` : "";
  return make("span", { class: "answers" }, make("b", { class: "wrong" }, shortAnswer(error.prediction) || "nothing"), make("span", { class: "soft" }, sure, size), make("span", { class: "soft" }, " instead of "), make("b", {}, shortAnswer(error.truth) || "nothing"));
}

// Whether one class or number is the answer. A text or a picture has one for each step or pixel.
const hasAnswer = (error) => error.truth !== "" || error.prediction !== "";

function pictureCard(target, error) {
  const pictures = error.input.filter((cell) => cell.picture).map((cell) => samplePicture(cell, error));
  const maps = error.answers.filter((cell) => cell.picture).map((cell) => make("figure", { class: "answer" }, samplePicture(cell, error), make("figcaption", {}, cell.name)));
  const texts = error.input.filter((cell) => !cell.picture).map((cell) => make("span", { class: "soft" }, `${cell.name}: ${cell.text}`));
  return make("figure", { class: "wrong-answer" }, make("div", { class: "samples" }, pictures), maps.length ? make("div", { class: "answer-pictures" }, maps) : null, make("figcaption", {}, answers(target, error), texts, make("span", { class: "soft" }, nameOf(error))));
}

const samplePicture = (cell, error) => make("img", { src: cell.picture, alt: `${cell.name} of ${nameOf(error)}`, class: "sample" });

function textItem(target, error) {
  const text = error.input[0].text;
  const short = text.length > MAX_SHOWN_TEXT ? make("details", {}, make("summary", {}, `${text.slice(0, MAX_SHOWN_TEXT)}…`), make("span", { class: "quoted" }, text)) : make("span", { class: "quoted" }, text);
  return make("li", {}, make("div", {}, answers(target, error), make("span", { class: "soft" }, nameOf(error))), short);
}

const shortAnswer = (text) => (text !== "" && Number.isFinite(Number(text)) ? shortNumber(Number(text)) : text);

function errorTable(target, errors) {
  const names = [...new Set(errors.flatMap((each) => each.input.map((cell) => cell.name)))];
  const has = (key) => errors.some((each) => each[key] !== null && each[key] !== "");
  const columns = [
    [has("id") ? "id" : "row", (each) => nameOf(each).replace(/^row /, ""), ""],
    ["truth", (each) => shortAnswer(each.truth), isNumbers(target) ? "number" : ""],
    ["prediction", (each) => make("b", { class: "wrong" }, shortAnswer(each.prediction)), isNumbers(target) ? "number" : ""],
    has("probability") ? ["probability", (each) => (each.probability === null ? "" : percent(each.probability)), "number"] : null,
    has("error") ? ["error", (each) => (each.error === null ? "" : shortNumber(each.error)), "number"] : null,
    ...names.map((name) => [name, (each) => each.input.find((cell) => cell.name === name)?.text ?? "", ""]),
  ].filter(Boolean);
  return plainTable(columns.map(([head]) => head), errors.map((error) => columns.map(([, read]) => read(error))), columns.map(([, , kind]) => kind));
}
