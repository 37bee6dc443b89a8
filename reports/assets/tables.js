// Tables sort by a click, or Enter, on a heading: up, down, as written. Each group of rows sorts for itself.
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  for (const table of document.querySelectorAll("table.sortable")) {
    const bodies = [...table.tBodies].map((body) => ({ body, written: [...body.rows].filter((row) => !row.matches(".group")) }));
    if (!bodies.some(({ written }) => written.length > 1)) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.matches("td")) return; // no heading, nothing to name a button by
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const order = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (order !== "none") head.setAttribute("aria-sort", order);
        for (const { body, written } of bodies) body.append(...(order === "none" ? written : sorted(written, column, head.dataset.kind, order)));
      });
    });
  }

  // Where a table goes on beyond the edge, that is said: a phone shows no scroll bar until one scrolls. A formula that
  // does can be reached with Tab, and scrolled with the arrow keys.
  const boxes = new ResizeObserver((entries) => entries.forEach(({ target }) => tell(target)));
  const tell = (box) => {
    const hidden = box.scrollWidth - box.clientWidth > 1;
    if (box.matches("math")) { if (hidden) box.tabIndex = 0; else box.removeAttribute("tabindex"); return; }
    box.classList.toggle("beyond", hidden);
    box.classList.toggle("at-end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 2);
  };
  for (const box of document.querySelectorAll(".block-table .scroll, .models .scroll, .more .scroll, math[display=block]")) {
    boxes.observe(box);
    box.addEventListener("scroll", () => tell(box), { passive: true });
  }

  function sorted(rows, column, kind, order) {
    const sign = order === "ascending" ? 1 : -1;
    // A cell says what it sorts by where neither its full value nor its text does.
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v ?? ((kind === "number" && plain(cell.title)) || cell.textContent);
    };
    return [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last, either way
      return sign * (kind === "number" ? compare(number(x), number(y)) : collator.compare(x, y));
    });
  }
  const plain = (text) => (text !== "" && !Number.isNaN(number(text)) ? text : "");
  const number = (text) => {
    const digits = text.replaceAll(",", "").replace("−", "-");
    return digits === "inf" || digits === "∞" ? Infinity : digits === "-inf" || digits === "-∞" ? -Infinity : Number(digits);
  };
  const compare = (x, y) => (x < y ? -1 : x > y ? 1 : 0);
})();
