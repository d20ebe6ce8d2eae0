// What the evaluation says about each target: confusion matrix, worst errors, calibration, scatter, threshold.

let targetPlots = [];

function drawTargets() {
  targetPlots = [];
  const targets = DATA.evaluation?.targets ?? [];
  if (targets.length === 0) return byId("targets").remove();
  replace(byId("targets"), targets.map(targetCard));
  targetPlots.forEach((each) => each());
}

function targetCard(target) {
  const errors = make("div", {});
  const parts = [];
  const choose = (cell) => {
    drawErrors(errors, target, cell, () => choose(null));
    if (cell) errors.scrollIntoView({ block: "nearest" });
  };
  if (target.confusion) parts.push(make("figure", { class: target.classes.length > 10 ? "broad" : null }, make("figcaption", {}, make("b", {}, "Confusion")), confusionOf(target, choose)));
  if (target.labels.length) parts.push(make("figure", {}, make("figcaption", {}, make("b", {}, "Labels")), labelTable(target.labels)));
  if (target.calibration.some((each) => each.rows)) parts.push(plotFigure("Calibration", calibrationNote(target), (area) => calibrationPlot(area, target)));
  if (target.scatter.length) parts.push(plotFigure("Predictions against true values", "On the dashed line a prediction is exact.", (area) => scatterPlot(area, target)));
  if (target.threshold) parts.push(thresholdAdvice(target));
  if (target.errors.length) choose(null);
  const title = DATA.evaluation.targets.length > 1 || target.name ? `Target ${target.name}` : "Target";
  return make("section", { class: "card target" }, make("h2", {}, title), make("div", { class: "parts" }, parts), target.errors.length ? make("h3", {}, isNumbers(target) ? "Worst predictions" : "Worst errors") : null, target.errors.length ? errors : null);
}

// A figure whose plot is drawn when the figure is on the page, because a plot needs its width.
function plotFigure(title, text, draw) {
  const area = make("div", { class: "square" });
  targetPlots.push(() => draw(area));
  return make("figure", {}, make("figcaption", {}, make("b", {}, title)), text ? make("p", { class: "soft tight" }, text) : null, area);
}

function labelTable(labels) {
  const share = (part, all) => (all ? percent(part / all) : "");
  const rows = labels.map((each) => [each.name, count(each.true_positive + each.false_negative), share(each.true_positive, each.true_positive + each.false_positive), share(each.true_positive, each.true_positive + each.false_negative)]);
  return plainTable(["label", "rows with it", "precision", "recall"], rows, ["", "number", "number", "number"]);
}

// ---- calibration ----------------------------------------------------------------------------------------------------

const filledBins = (target) => target.calibration.filter((each) => each.rows && isNumber(each.confidence) && isNumber(each.accuracy));

// Of two classes and of labels, the probability is that of the positive one; else it is that of the predicted class.
const positiveOf = (target) => (target.classes.length === 2 ? target.classes[1] : target.labels.length ? "a label" : null);

function calibrationNote(target) {
  const bins = filledBins(target);
  const rows = bins.reduce((sum, each) => sum + each.rows, 0);
  const difference = bins.reduce((sum, each) => sum + (each.rows / rows) * Math.abs(each.confidence - each.accuracy), 0);
  const gap = bins.reduce((sum, each) => sum + (each.rows / rows) * (each.confidence - each.accuracy), 0);
  const positive = positiveOf(target);
  const about = positive ? `How often the truth is ${positive} when the network gives it this probability.` : "How often the network is right when it gives its prediction this probability.";
  const side = positive || Math.abs(gap) < 0.01 ? "" : gap > 0 ? "; on the whole it is too certain" : "; on the whole it is not certain enough";
  return `${about} On average the two differ by ${percent(difference)}${side}.`;
}

function calibrationPlot(area, target) {
  const bins = filledBins(target);
  const most = Math.max(...bins.map((each) => each.rows));
  return plot(area, {
    height: 280,
    isSmall: true,
    x: { label: `probability of ${positiveOf(target) ?? "the prediction"}`, bounds: [0, 1] },
    y: { bounds: [0, 1] },
    draw: (context, toX, toY) => {
      context.fillStyle = theme.line; // how many rows there are: bars from the bottom
      for (const each of bins) context.fillRect(toX(each.low ?? each.confidence) + 1, toY(0), toX(each.high ?? each.confidence) - toX(each.low ?? each.confidence) - 2, toY((0.25 * each.rows) / most) - toY(0));
      paintLine(context, [toX(0), toY(0), toX(1), toY(1)]);
      context.strokeStyle = context.fillStyle = theme.accent;
      context.lineWidth = 1.75;
      path(context, bins.flatMap((each) => [toX(each.confidence), toY(each.accuracy)]));
      for (const each of bins) dot(context, toX(each.confidence), toY(each.accuracy), 3.5);
    },
    find: (toX, toY, left, top) => nearestPoint(bins, (each) => [each.confidence, each.accuracy], toX, toY, left, top),
    over: (found, event) => (found ? showNote(event, `${plural(found.rows, "row")}: probability ${percent(found.confidence)} on average, true in ${percent(found.accuracy)}`) : showNote(event)),
    click: () => {},
  });
}

// ---- numbers --------------------------------------------------------------------------------------------------------

function scatterPlot(area, target) {
  const ends = bounds(target.scatter.flat());
  return plot(area, {
    height: 320,
    isSmall: true,
    x: { label: "true value", bounds: ends },
    y: { bounds: ends },
    draw: (context, toX, toY) => {
      paintLine(context, [toX(ends[0]), toY(ends[0]), toX(ends[1]), toY(ends[1])]);
      context.fillStyle = theme.accent;
      context.globalAlpha = target.scatter.length > 200 ? 0.45 : 0.75;
      for (const [truth, prediction] of target.scatter) dot(context, toX(truth), toY(prediction), 2.75);
      context.globalAlpha = 1;
    },
    find: (toX, toY, left, top) => nearestPoint(target.scatter, (each) => each, toX, toY, left, top),
    over: (found, event) => (found ? showNote(event, `true ${shortNumber(found[0])}, predicted ${shortNumber(found[1])}`) : showNote(event)),
    click: () => {},
  });
}

// ---- threshold ------------------------------------------------------------------------------------------------------

function thresholdAdvice(target) {
  const { value, metric, split, score, default_score: usual, evaluated_score: here, evaluated_default_score: usualHere } = target.threshold;
  const positive = positiveOf(target) ?? "the positive class";
  const rows = split ? ` on the ${split} split` : "";
  const caption = make("figcaption", {}, make("b", {}, "Threshold"));
  if (value === 0.5) return make("figure", {}, caption, make("p", {}, `Predict ${positive} above a probability of 0.5, as the network does: no other threshold gives a better ${metric || "result"}${rows}.`));
  const scores = isNumber(here) && isNumber(usualHere) ? `${shortNumber(here)} instead of ${shortNumber(usualHere)}` : "";
  if (scores && here < usualHere) return make("figure", {}, caption, make("p", {}, `Predict ${positive} above a probability of 0.5, as the network does: ${shortNumber(value, 3)} gives the best ${metric || "result"}${rows}, but a worse one on the rows of this evaluation, ${scores}.`));
  const gain = isNumber(score) && isNumber(usual) ? `, ${shortNumber(score)} instead of ${shortNumber(usual)}` : "";
  const advice = `Predict ${positive} above a probability of ${shortNumber(value, 3)} rather than 0.5: this gives the best ${metric || "result"}${rows}${gain}${scores ? `; on the rows of this evaluation ${scores}` : ""}.`;
  return make("figure", {}, caption, make("p", {}, advice), command(`${DATA.threshold_command}${value}`));
}
