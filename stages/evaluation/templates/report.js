// Moves what a threshold decides. The page is complete without it: it then shows the model's own threshold.
"use strict";
const data = JSON.parse(document.getElementById("steps").textContent);
const fixed = value => Number.isFinite(value) ? value.toFixed(3) : "–";
const whole = value => Math.round(value).toLocaleString("en-US");

function coordinate([log, low, high, start, end], value) {
  const inside = Math.min(Math.max(value, low), high);
  const share = log ? Math.log(inside / low) / Math.log(high / low) : (inside - low) / (high - low);
  return start + share * (end - start);
}

document.querySelectorAll("[data-panel]").forEach((panel, place) => {
  const { thresholds, positives, negatives } = data[place];
  // How many pictures score at least each threshold.
  const above = counts => {
    let sum = 0;
    return counts.slice().reverse().map(count => sum += count).reverse();
  };
  const found = above(positives), alarms = above(negatives);
  const slider = panel.querySelector("input[type=range]"), share = panel.querySelector("select[data-share]");

  function show() {
    const at = Number(slider.value), threshold = thresholds[at];
    const tp = found[at], fp = alarms[at], fn = found[0] - tp, tn = alarms[0] - fp;
    const recall = tp / found[0], rate = fp / alarms[0];
    const prevalence = share.value ? Number(share.value) : found[0] / (found[0] + alarms[0]);
    const right = 1000 * prevalence * recall, wrong = 1000 * (1 - prevalence) * rate;
    const precision = right + wrong ? right / (right + wrong) : NaN;
    const values = {
      threshold: fixed(threshold), precision: fixed(precision), recall: fixed(recall), alarms: wrong.toFixed(1),
      tp: whole(tp), fp: whole(fp), fn: whole(fn), tn: whole(tn),
      right: right.toFixed(1), missed: (1000 * prevalence - right).toFixed(1),
    };
    for (const [name, value] of Object.entries(values)) {
      panel.querySelectorAll(`[data-out=${name}]`).forEach(element => element.textContent = value);
    }
    slider.setAttribute("aria-valuetext", `threshold ${values.threshold}, recall ${values.recall}`);
    const points = { roc: [rate, recall], pr: [recall, tp + fp ? tp / (tp + fp) : 1], scores: [threshold, 0] };
    for (const [name, [x, y]] of Object.entries(points)) {
      const svg = panel.querySelector(`[data-chart=${name}] svg`);
      const left = coordinate(JSON.parse(svg.dataset.x), x), up = coordinate(JSON.parse(svg.dataset.y), y);
      const dot = svg.querySelector("[data-dot]"), line = svg.querySelector("[data-line]");
      if (dot) { dot.setAttribute("cx", left); dot.setAttribute("cy", up); }
      if (line) line.setAttribute("transform", `translate(${left} 0)`);
    }
  }

  slider.addEventListener("input", show);
  share.addEventListener("change", show);
  show(); // a browser may have kept the place of an earlier visit
  panel.querySelectorAll("button[data-step]").forEach(button => button.addEventListener("click", () => {
    slider.value = button.dataset.step;
    show();
  }));
});

const chooser = document.getElementById("label");
if (chooser) {
  const choose = () => document.querySelectorAll("[data-panel]").forEach((panel, place) => {
    panel.hidden = String(place) !== chooser.value;
  });
  chooser.addEventListener("change", choose);
  choose();
}

document.querySelectorAll("button[data-reveal]").forEach(button => button.addEventListener("click", () => {
  const boxes = [...button.closest("section").querySelectorAll(".pictures input")];
  const show = !boxes.every(box => box.checked);
  boxes.forEach(box => box.checked = show);
  button.textContent = show ? "Blur all" : "Show all";
}));

document.querySelectorAll("[data-script]").forEach(element => element.hidden = false);
