// Set up the page of a run.

function start() {
  readTheme();
  document.body.append(note);
  drawHeader();
  drawResults();
  startCurves();
  drawMetrics();
  drawGroups();
  drawTargets();
  drawNetwork();
  drawPictures();
  drawUse();
  drawSpec();
  drawEnvironment();
  drawSections();
  watchTheme(() => {
    if (byId("curves-card")) drawCurves();
    if (byId("targets")) drawTargets();
  });
}

start();
