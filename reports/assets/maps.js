// Maps say their values: at the pointer, under a finger, and with the arrow keys, row by row and column by column.
(() => {
  for (const figure of document.querySelectorAll("figure.block-heatmap")) {
    const svg = figure.querySelector("svg");
    const cells = svg.querySelector(".cells");
    if (!cells) continue; // a large one is an image
    const known = new Map([...cells.querySelectorAll("rect")].map((rect) => [`${rect.getAttribute("y")} ${rect.getAttribute("x")}`, rect]));
    const [across, down] = [...svg.querySelectorAll(".axis-label")].map((label) => label.textContent);
    const frame = svg.querySelector(".heat-frame");
    const side = Number(cells.getAttribute("transform").match(/[\d.]+/)[0]);
    const [columns, rows] = ["width", "height"].map((name) => Math.round(Number(frame.getAttribute(name)) / side));
    const names = new Map([...known].map(([place, rect]) => [place, rect.querySelector("title").textContent.match(/^(.*), (.*): ([^:]*)$/s)]));
    for (const rect of known.values()) rect.querySelector("title").remove(); // one tip is enough

    const holder = figure.querySelector(".heatmap");
    const mark = kit.drawn("rect", { class: "probe-cell", width: side, height: side, "aria-hidden": "true", visibility: "hidden" });
    const tip = kit.element("div", { class: "probe-tip", hidden: "", "aria-hidden": "true" });
    const probe = kit.element("div", {
      class: "probe", role: "slider", tabindex: "0", "aria-label": `Values: ${figure.querySelector("figcaption")?.firstChild.textContent ?? "map"}`,
      "aria-valuemin": 1, "aria-valuemax": rows * columns, "aria-valuenow": 1,
    });
    cells.parentElement.append(mark);
    holder.append(probe, tip);
    let at = [0, 0];

    const worded = ([i, j]) => {
      const [, row, column, value] = names.get(`${i} ${j}`) ?? [null, i, j, "masked"];
      return [[down, row], [across, column]].filter(([label]) => label).map((pair) => pair.join(" ")).join(", ") + `: ${value}`;
    };
    const say = () => {
      probe.setAttribute("aria-valuenow", at[0] * columns + at[1] + 1);
      probe.setAttribute("aria-valuetext", worded(at));
    };
    const show = (i, j) => {
      at = [Math.max(0, Math.min(rows - 1, i)), Math.max(0, Math.min(columns - 1, j))];
      say();
      mark.setAttribute("x", at[1] * side);
      mark.setAttribute("y", at[0] * side);
      mark.setAttribute("visibility", "visible");
      tip.textContent = worded(at);
      tip.hidden = false;
      const [box, cell] = [holder.getBoundingClientRect(), mark.getBoundingClientRect()];
      tip.style.left = `${Math.max(0, Math.min(box.width - tip.offsetWidth, cell.left - box.left + cell.width / 2 - tip.offsetWidth / 2))}px`;
      const above = cell.top - box.top - tip.offsetHeight - 6;
      tip.style.top = `${above < 0 ? cell.bottom - box.top + 6 : above}px`;
    };
    const hide = () => { tip.hidden = true; mark.setAttribute("visibility", "hidden"); };
    const pick = (event) => {
      const box = frame.getBoundingClientRect();
      show(Math.floor(((event.clientY - box.top) / box.height) * rows), Math.floor(((event.clientX - box.left) / box.width) * columns));
    };
    probe.addEventListener("pointermove", pick);
    probe.addEventListener("pointerdown", pick);
    probe.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
    probe.addEventListener("focus", () => show(...at));
    probe.addEventListener("blur", hide);
    probe.addEventListener("keydown", (event) => {
      const [i, j] = at;
      const next = {
        ArrowRight: [i, j + 1], ArrowLeft: [i, j - 1], ArrowDown: [i + 1, j], ArrowUp: [i - 1, j], Home: [i, 0], End: [i, columns - 1],
      }[event.key];
      if (event.key === "Escape") hide();
      if (!next) return;
      event.preventDefault();
      show(...next);
    });
    say();
  }
})();
