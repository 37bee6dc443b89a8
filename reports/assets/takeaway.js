// Under each table CSV and a copy, under each drawing SVG and PNG, on code a copy: made of what the page shows.
(() => {
  const nameOf = (figure) => {
    const section = figure.closest("section.exercise")?.id.replace(/^ex-(\d+)-(\d+)$/, "$1.$2") ?? "report";
    const letter = figure.closest("section.part")?.id.match(/^ex-\d+-\d+-([a-z])-\d+$/)?.[1] ?? "";
    const title = figure.querySelector("figcaption")?.firstChild.textContent ?? "";
    return `${section}${letter}-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 40) || "figure"}`;
  };

  const button = (label, what, act) => {
    const made = kit.element("button", { type: "button", "aria-label": `${label}: ${what}` }, label);
    made.addEventListener("click", async () => {
      await act();
      if (!label.startsWith("Copy")) return;
      made.textContent = "Copied";
      made.setAttribute("aria-label", `Copied: ${what}`);
      setTimeout(() => { made.textContent = label; made.setAttribute("aria-label", `${label}: ${what}`); }, 1500);
    });
    return made;
  };
  const bar = (figure, ...buttons) => {
    const row = kit.element("div", { class: "take", role: "group", "aria-label": "Take away" }, ...buttons);
    figure.append(row);
  };

  // A cell as tables/*.csv has it: a number with all its digits, a text as it is read, nothing where nothing is.
  const cellText = (cell, numeric) => {
    if (cell.dataset.v === "") return "";
    return numeric ? cell.title || cell.textContent.replaceAll("−", "-") : cell.textContent;
  };
  const rowsOf = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const numeric = heads.map((head) => head.dataset.kind === "number");
    return [heads.map((head) => head.textContent), ...[...table.querySelectorAll("tbody tr:not(.group)")].map((row) => [...row.cells].map((cell, i) => cellText(cell, numeric[i])))];
  };
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (rows) => rows.map((row) => row.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\n") + "\n";
  const tsv = (rows) => rows.map((row) => row.map((cell) => cell.replace(/[\t\r\n]+/g, " ")).join("\t")).join("\n") + "\n";
  const saveCsv = (name, rows) => kit.save(`${name}.csv`, new Blob([csv(rows)], { type: "text/csv;charset=utf-8" }));

  for (const figure of document.querySelectorAll("figure.block-table")) {
    const table = figure.querySelector("table");
    bar(figure,
      button("CSV", "the numbers of this table", () => saveCsv(nameOf(figure), rowsOf(table))),
      button("Copy", "this table, for a spreadsheet", () => kit.copy(tsv(rowsOf(table)))));
  }

  // A drawing as a file of its own: in the light colours, its styles written into it, its legend above it.
  const INLINED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "font-size", "font-family", "font-weight", "text-anchor", "image-rendering"];
  const fileOf = (figure) => {
    const shown = [...figure.querySelectorAll(".chart svg, .heatmap svg")].find((svg) => svg.clientWidth) ?? figure.querySelector(".chart svg, .heatmap svg");
    const [left, top, width, height] = shown.getAttribute("viewBox").split(" ").map(Number);
    // Colours are those of the light theme, whatever the reader's: light-dark() follows the colour scheme of the copy.
    const stage = kit.element("div", { class: figure.querySelector(".heatmap") ? "stage heatmap" : "stage chart", style: "color-scheme:light" });
    const copy = shown.cloneNode(true);
    copy.querySelectorAll(".probe-mark, .probe-cell").forEach((mark) => mark.remove());
    stage.append(copy);
    const entries = [...figure.querySelectorAll(".legend li")].map((item) => [item.querySelector("svg").cloneNode(true), item.textContent.trim()]);
    const [x0, line, font] = [left + 4, 22, 13];
    let [x, y] = [x0, 0];
    const keys = entries.map(([swatch, name]) => {
      const wide = 44 + 0.56 * font * name.length;
      if (x > x0 && x + wide > left + width) [x, y] = [x0, y + line];
      const key = kit.drawn("g", { transform: `translate(${x} ${y})` }, ...swatch.childNodes, kit.drawn("text", { x: 40, y: 12, style: `font-size:${font}px;fill:var(--chart-text)` }, name));
      x += wide + 16;
      return key;
    });
    const head = keys.length ? y + line + 8 : 0;
    copy.prepend(kit.drawn("rect", { x: left, y: top - head, width, height: height + head, style: "fill:#fff" }));
    copy.append(kit.drawn("g", { transform: `translate(0 ${top - head + 4})` }, ...keys));
    copy.setAttribute("viewBox", `${left} ${top - head} ${width} ${height + head}`);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height + head);
    copy.removeAttribute("style");
    document.body.append(stage);
    for (const one of copy.querySelectorAll("g, path, rect, text, use, circle, line")) {
      const style = getComputedStyle(one);
      const said = INLINED.map((name) => [name, style.getPropertyValue(name)]);
      one.removeAttribute("class");
      one.setAttribute("style", said.map(([name, value]) => `${name}:${value.replaceAll('"', "'")}`).join(";"));
    }
    stage.remove();
    return { text: new XMLSerializer().serializeToString(copy), width, height: height + head };
  };
  const png = async ({ text, width, height }) => {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const canvas = kit.element("canvas", { width: Math.round(2 * width), height: Math.round(2 * height) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  };
  const chartRows = (data) => [
    ["series", ...data.labels, ...(data.series.some((one) => one.e) ? ["±"] : [])],
    ...data.series.flatMap((one) => one.y.map((y, i) => [one.name, data.x[one.x][i], y, ...(one.e ? [one.e[i]] : [])])),
  ];

  for (const figure of document.querySelectorAll("figure.block-figure, figure.block-heatmap")) {
    const name = () => nameOf(figure);
    const buttons = [
      button("SVG", "this drawing as a file", () => kit.save(`${name()}.svg`, new Blob([fileOf(figure).text], { type: "image/svg+xml" }))),
      button("PNG", "this drawing as an image", async () => kit.save(`${name()}.png`, await png(fileOf(figure)))),
    ];
    if (figure.matches("[data-chart]")) buttons.push(button("CSV", "the numbers of this chart", () => saveCsv(name(), chartRows(kit.data(figure)))));
    bar(figure, ...buttons);
  }

  for (const figure of document.querySelectorAll("figure.block-code, figure.block-sample")) {
    const text = figure.querySelector("pre");
    bar(figure, button("Copy", figure.matches(".block-code") ? "this listing" : "this text", () => kit.copy(text.textContent)));
  }
})();
