// The confusion matrix: rows are true classes, columns are predictions. A click on a cell lists its errors.

const MAX_MATRIX_CLASSES = 40;
const MAX_NUMBERED_CLASSES = 20;
const MAX_PAIRS = 20;

function confusionOf(target, choose) {
  return target.classes.length > MAX_MATRIX_CLASSES ? confusedPairs(target, choose) : confusionMatrix(target, choose);
}

function confusionMatrix({ classes, confusion, errors }, choose) {
  const canChoose = errors.some(hasAnswer);
  const isNumbered = classes.length <= MAX_NUMBERED_CLASSES;
  const head = make("tr", {}, make("td", {}), classes.map((name) => make("th", { scope: "col", title: name }, make("span", {}, name))));
  const rows = confusion.map((row, truth) => {
    const total = row.reduce((sum, each) => sum + each, 0);
    const cells = row.map((rows, prediction) => matrixCell({ truth, prediction, rows, share: total ? rows / total : 0 }, classes, isNumbered, canChoose ? choose : null));
    return make("tr", {}, make("th", { scope: "row", title: classes[truth] }, classes[truth]), cells);
  });
  return make("div", {}, make("p", { class: "soft tight" }, "Rows are true classes, columns are predictions."), make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "confusion matrix" }, make("table", { class: `matrix${isNumbered ? (classes.length <= 4 ? " large" : "") : " dense"}` }, make("thead", {}, head), make("tbody", {}, rows))));
}

function matrixCell(cell, classes, isNumbered, choose) {
  const { truth, prediction, rows, share } = cell;
  const isRight = truth === prediction;
  const about = `${classes[truth]} predicted as ${classes[prediction]}: ${plural(rows, "row")}, ${percent(share)} of the true class`;
  const button = make("button", { class: isRight ? "right" : "wrong", disabled: isRight || rows === 0 || !choose, "aria-label": about, onclick: () => choose(cell) }, isNumbered && rows ? count(rows) : "");
  button.style.setProperty("--share", share.toFixed(3));
  if (share > 0.55) button.classList.add("full");
  return make("td", { onmousemove: (event) => showNote(event, about), onmouseleave: (event) => showNote(event) }, button);
}

function confusedPairs({ classes, confusion }, choose) {
  const pairs = confusion.flatMap((row, truth) => row.map((rows, prediction) => ({ truth, prediction, rows })).filter((each) => each.rows && each.truth !== each.prediction));
  const worst = pairs.sort((a, b) => b.rows - a.rows).slice(0, MAX_PAIRS);
  const show = (each) => make("button", { onclick: () => choose(each) }, count(each.rows));
  return make("div", {}, make("p", { class: "soft tight" }, `The most frequent errors among ${count(classes.length)} classes.`), plainTable(["true class", "prediction", "rows"], worst.map((each) => [classes[each.truth], classes[each.prediction], show(each)]), ["", "", "number"]));
}
