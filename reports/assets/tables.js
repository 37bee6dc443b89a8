// Tables sort by a click, or Enter, on a heading: up, down, as written.
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const written = [...body.rows];
    if (written.length < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const order = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (order !== "none") head.setAttribute("aria-sort", order);
        body.append(...(order === "none" ? written : sorted(written, column, head.dataset.kind, order)));
      });
    });
  }

  function sorted(rows, column, kind, order) {
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.v ?? "";
    return [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last, either way
      return sign * (kind === "number" ? compare(number(x), number(y)) : collator.compare(x, y));
    });
  }
  const number = (text) => (text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text));
  const compare = (x, y) => (x < y ? -1 : x > y ? 1 : 0);
})();
