// Sliders for temperature, k and p: the same arithmetic as turned() in reports/live/views.py.
(() => {
  const softmax = (logits, temperature) => {
    const largest = Math.max(...logits);
    const weights = logits.map((z) => Math.exp((z - largest) / temperature));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((w) => w / sum);
  };
  const turn = (logits, { temperature, k, p }) => {
    const hot = softmax(logits, temperature);
    const ranked = hot.map((_, i) => i).sort((a, b) => logits[b] - logits[a] || a - b);
    const order = ranked.filter((i) => logits[i] >= logits[ranked[k - 1]]); // ties with the k-th stay
    const whole = order.reduce((sum, i) => sum + hot[i], 0);
    const kept = new Set();
    let mass = 0;
    for (const i of order) {
      kept.add(i);
      mass += hot[i];
      if (mass / whole >= p - 1e-12) break; // from there on it is rounding
    }
    const after = hot.map((q, i) => (kept.has(i) ? q / mass : 0));
    const entropy = -after.reduce((sum, q) => sum + (q > 0 ? q * Math.log(q) : 0), 0);
    return { after, mass, kept: kept.size, entropy, effective: Math.exp(entropy) };
  };

  for (const figure of document.querySelectorAll("[data-distribution]")) {
    const { logits, settings } = kit.data(figure);
    const rows = [...figure.querySelectorAll(".turned tbody tr")];
    const outs = [...figure.querySelectorAll("[data-out]")];
    const buttons = [...figure.querySelectorAll("[data-setting]")];
    const ranges = [...figure.querySelectorAll("[data-turn]")];
    const typed = [...figure.querySelectorAll("[data-type]")];
    const [temperature, k, p] = settings[0];
    const now = { temperature, k, p };

    const draw = (moved) => {
      const found = turn(logits, now);
      rows.forEach((row, i) => {
        const value = found.after[i];
        row.classList.toggle("removed", value === 0);
        const cell = row.querySelector("[data-now]");
        cell.dataset.now = value;
        cell.textContent = kit.number(value);
        row.querySelector(".bar span").style.setProperty("--w", value);
      });
      for (const out of outs) {
        const value = found[out.dataset.out];
        out.dataset.value = value;
        out.textContent = kit.number(value);
      }
      for (const range of ranges) if (range !== moved) range.value = range.dataset.turn === "temperature" ? Math.log10(now.temperature) : now[range.dataset.turn];
      for (const range of ranges) range.setAttribute("aria-valuetext", `${range.dataset.turn} ${kit.number(now[range.dataset.turn], 3)}`);
      for (const box of typed) if (box !== moved) box.value = Number(now[box.dataset.type].toPrecision(4));
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", settings[i].every((value, j) => value === [now.temperature, now.k, now.p][j])));
    };
    for (const range of ranges) range.addEventListener("input", () => {
      const value = Number(range.value);
      now[range.dataset.turn] = range.dataset.turn === "temperature" ? Number((10 ** value).toPrecision(3)) : value;
      draw(range);
    });
    for (const box of typed) box.addEventListener("input", () => {
      const value = box.valueAsNumber;
      if (!(value >= Number(box.min) && value <= Number(box.max))) return; // not finished, or not possible
      now[box.dataset.type] = box.dataset.type === "k" ? Math.round(value) : value;
      draw(box);
    });
    buttons.forEach((button, i) => button.addEventListener("click", () => {
      [now.temperature, now.k, now.p] = settings[i];
      draw();
    }));
    draw();
  }
})();
