// A mask to set: who sees whom, as in seen() of reports/live/views.py.
(() => {
  for (const figure of document.querySelectorAll("[data-mask]")) {
    const now = kit.data(figure); // length, window (0: none), prefix
    const table = figure.querySelector("table");
    const ranges = Object.fromEntries([...figure.querySelectorAll("[data-turn]")].map((range) => [range.dataset.turn, range]));
    const sees = (i, j) => (j <= i && (!now.window || j > i - now.window)) || j < now.prefix;
    const among = Array.from;
    let place = [now.length - 1, now.length - 1];

    const listed = (numbers) => { // "0–3, 7"
      const runs = [];
      for (const n of numbers) runs.at(-1)?.[1] === n - 1 ? (runs.at(-1)[1] = n) : runs.push([n, n]);
      return runs.map(([a, b]) => (a === b ? a : `${a}–${b}`)).join(", ") || "none";
    };
    const cellAt = (i, j) => table.tBodies[0].rows[i]?.cells[j + 1];
    const say = (i, j) => {
      const positions = among({ length: now.length }, (_, n) => n);
      const keys = positions.filter((key) => sees(i, key));
      const queries = positions.filter((query) => sees(query, j));
      figure.querySelector("[data-say]").textContent = `Query ${i} ${sees(i, j) ? "sees" : "does not see"} key ${j}. It sees ${listed(keys)}: ${keys.length} of ${now.length}; key ${j} is seen by ${listed(queries)}. `;
      for (const cell of table.querySelectorAll(".on")) cell.classList.remove("on");
      keys.forEach((key) => cellAt(i, key).classList.add("on"));
      queries.forEach((query) => cellAt(query, j).classList.add("on"));
    };
    const draw = () => {
      const count = now.length;
      table.tHead.rows[0].replaceChildren(kit.element("td"), ...among({ length: count }, (_, j) => kit.element("th", { scope: "col" }, String(j))));
      let pairs = 0;
      table.tBodies[0].replaceChildren(...among({ length: count }, (_, i) => kit.element("tr", {}, kit.element("th", { scope: "row" }, String(i)),
        ...among({ length: count }, (_, j) => {
          const seen = sees(i, j);
          pairs += seen;
          return kit.element("td", { class: seen ? "sees" : "", tabindex: "-1", "data-row": i, "data-column": j, "aria-label": `query ${i} ${seen ? "sees" : "does not see"} key ${j}` }, seen ? "●" : "");
        }))));
      place = place.map((at) => Math.min(at, count - 1));
      cellAt(...place).tabIndex = 0;
      figure.querySelector("[data-pairs]").textContent = `${pairs} of ${count * count} pairs of query and key are seen.`;
      for (const [name, range] of Object.entries(ranges)) range.parentElement.querySelector("output").textContent = range.value = now[name] || (name === "window" ? count : 0);
    };
    const leave = () => {
      figure.querySelector("[data-say]").textContent = "";
      for (const cell of table.querySelectorAll(".on")) cell.classList.remove("on");
    };

    for (const [name, range] of Object.entries(ranges)) range.addEventListener("input", () => {
      now[name] = Number(range.value);
      for (const other of ["window", "prefix"]) {
        if (!ranges[other]) continue;
        ranges[other].max = now.length;
        now[other] = Math.min(now[other], now.length);
      }
      leave();
      draw();
    });
    const at = (event) => event.target.closest("td[data-row]");
    table.addEventListener("pointerover", (event) => { const cell = at(event); if (cell) say(Number(cell.dataset.row), Number(cell.dataset.column)); });
    table.addEventListener("pointerleave", leave);
    table.addEventListener("focusin", (event) => {
      const cell = at(event);
      if (!cell) return;
      cellAt(...place).tabIndex = -1;
      cell.tabIndex = 0;
      place = [Number(cell.dataset.row), Number(cell.dataset.column)];
      say(...place);
    });
    table.addEventListener("focusout", leave);
    table.addEventListener("keydown", (event) => {
      const [i, j] = place;
      const next = {
        ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1], Home: [i, 0], End: [i, now.length - 1],
      }[event.key];
      if (!next) return;
      event.preventDefault();
      cellAt(...next)?.focus();
    });
    draw();
  }
})();
