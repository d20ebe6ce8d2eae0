// Set up the report of a sweep.

function start() {
  readTheme();
  document.body.append(note);
  drawHeader();
  drawBest();
  startTable();
  startCurves();
  startEffects();
  startParallel();
  drawFailures();
  drawNetworks();
  watchTheme(() => listeners.theme.forEach((listener) => listener()));
}

start();
