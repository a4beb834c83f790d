"use strict";
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const samples = [...document.querySelectorAll("[data-sample]")];
  const groups = [...document.querySelectorAll(".group")];
  samples.forEach((sample, place) => { sample.dataset.place = place; });

  for (const name of ["status", "shard"]) {
    for (const value of [...new Set(samples.map((sample) => sample.dataset[name]))].sort()) {
      form.elements[name].add(new Option(value, value));
    }
  }

  const by = {
    "": (a, b) => a.dataset.place - b.dataset.place,
    suspicion: (a, b) => b.dataset.suspicion - a.dataset.suspicion || a.dataset.place - b.dataset.place,
    key: (a, b) => (a.dataset.key < b.dataset.key ? -1 : a.dataset.key > b.dataset.key ? 1 : 0),
  };

  const isWanted = (sample, wanted) =>
    sample.dataset.key.includes(wanted.key.trim().toLowerCase()) &&
    ["status", "flip", "shard"].every((name) => !wanted[name] || sample.dataset[name] === wanted[name]);

  const nameOf = (sample) => `${sample.dataset.shard} ${sample.dataset.index}`;
  const count = new Set(samples.map(nameOf)).size;
  let order = "";
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const shown = new Set();  // one that is suspect may have been drawn at random as well
    for (const group of groups) {
      const own = [...group.querySelectorAll("[data-sample]")];
      const left = own.filter((sample) => !(sample.hidden = !isWanted(sample, wanted)));
      group.hidden = left.length === 0;
      group.querySelector("[data-count]").textContent =
        left.length === own.length ? `${own.length}` : `${left.length} of ${own.length}`;
      left.forEach((sample) => shown.add(nameOf(sample)));
      if (wanted.order !== order) own.sort(by[wanted.order]).forEach((sample) => sample.parentNode.append(sample));
    }
    order = wanted.order;
    document.getElementById("shown").textContent =
      shown.size === count ? `all ${count} samples shown` : `${shown.size} of ${count} samples shown`;
  };

  form.addEventListener("input", apply);
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply();
})();
