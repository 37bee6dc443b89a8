// Scored passages and attention maps: what is pointed at, or reached with the arrow keys, is named.
(() => {
  const tip = document.getElementById("tip");
  const showTip = (element, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = element.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 4);
    tip.style.left = `${left}px`;
    tip.style.top = `${box.top - own.height - 6 < 0 ? box.bottom + 6 : box.top - own.height - 6}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  addEventListener("scroll", hideTip, { passive: true, capture: true });

  // Readout: strings between bold ones, never parsed as HTML.
  const say = (readout, ...pieces) => {
    readout.replaceChildren(...pieces.map((piece, index) => {
      if (index % 2 === 0) return piece;
      const bold = document.createElement("b");
      bold.textContent = piece;
      return bold;
    }));
  };

  // One stop of the Tab key for many elements; the arrow keys move within them.
  const rove = (element, from) => {
    if (from) from.tabIndex = -1;
    element.tabIndex = 0;
  };

  for (const figure of document.querySelectorAll("[data-tokens]")) {
    const passage = figure.querySelector(".tokens");
    const readout = figure.querySelector(".readout");
    const tokens = [...passage.querySelectorAll(".tok")];
    if (!tokens.length) continue;
    tokens.forEach((token) => { token.tabIndex = -1; token.removeAttribute("title"); });
    let stop = tokens[0];
    stop.tabIndex = 0;
    const show = (token) => {
      showTip(token, `${token.dataset.token}: ${token.dataset.value}`);
      say(readout, "", token.dataset.token, ` token ${tokens.indexOf(token) + 1} of ${tokens.length}, ${passage.dataset.label}: `, token.dataset.value);
    };
    const middle = (token) => { const box = token.getClientRects()[0]; return [box.left + box.width / 2, box.top + box.height / 2]; };
    const vertical = (direction) => {
      const [x, y] = middle(stop);
      const beyond = tokens.filter((token) => direction * (middle(token)[1] - y) > 4);
      const distance = (token) => { const [u, v] = middle(token); return Math.abs(u - x) + 40 * Math.abs(v - y); };
      return beyond.sort((a, b) => distance(a) - distance(b))[0];
    };
    passage.addEventListener("pointerover", (event) => { const token = event.target.closest(".tok"); if (token) show(token); });
    passage.addEventListener("pointerleave", hideTip);
    passage.addEventListener("focusin", (event) => { rove(event.target, stop === event.target ? null : stop); stop = event.target; show(stop); });
    passage.addEventListener("focusout", hideTip);
    passage.addEventListener("keydown", (event) => {
      const at = tokens.indexOf(stop);
      const next = {
        ArrowRight: () => tokens[at + 1], ArrowLeft: () => tokens[at - 1], Home: () => tokens[0], End: () => tokens.at(-1),
        ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1),
      }[event.key]?.();
      if (next) { event.preventDefault(); next.focus(); }
      if (event.key === "Escape") hideTip();
    });
  }

  for (const figure of document.querySelectorAll("[data-attention]")) {
    const data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const table = figure.querySelector("table");
    const readout = figure.querySelector(".readout");
    const choose = Object.fromEntries([...figure.querySelectorAll("[data-choose]")].map((select) => [select.dataset.choose, select]));
    const thumbs = [...figure.querySelectorAll(".thumb")];
    let cells = [];
    let place = [0, 0];

    const weight = (weights, size, row, column) =>
      (data.triangular ? (column > row ? null : weights[(row * (row + 1)) / 2 + column]) : weights[row * size + column]);

    const fillHeads = () => {
      const heads = data.heads[choose.layer.value];
      const kept = Math.min(Math.max(0, choose.head.selectedIndex), heads.length - 1);
      choose.head.replaceChildren(...heads.map((head, index) => new Option(head, index)));
      choose.head.selectedIndex = kept;
    };

    const cellAt = (row, column) => cells[row]?.[column];
    const drawMap = () => {
      const [sentence, layer, head] = [choose.sentence, choose.layer, choose.head].map((select) => Number(select.value));
      const tokens = data.sentences[sentence];
      const weights = data.weights[sentence][layer][head];
      const largest = Math.max(1, ...weights);
      const bodyElement = document.createElement("tbody");
      cells = tokens.map((query, row) => {
        const line = document.createElement("tr");
        const name = document.createElement("th");
        name.scope = "row";
        name.textContent = query;
        line.append(name);
        const made = tokens.map((key, column) => {
          const cell = document.createElement("td");
          const value = weight(weights, tokens.length, row, column);
          if (value === null) cell.className = "masked";
          else cell.style.setProperty("--a", (value / largest).toFixed(3));
          Object.assign(cell.dataset, { row, column, weight: value === null ? "masked" : (value / 1000).toFixed(3) });
          cell.tabIndex = -1;
          cell.setAttribute("aria-label", `${query} to ${key}: ${cell.dataset.weight}`);
          return cell;
        });
        line.append(...made);
        bodyElement.append(line);
        return made;
      });
      const foot = document.createElement("tr");
      foot.append(document.createElement("td"));
      tokens.forEach((key) => {
        const name = document.createElement("th");
        name.scope = "col";
        name.textContent = key;
        foot.append(name);
      });
      bodyElement.append(foot);
      table.replaceChildren(bodyElement);
      table.classList.toggle("long", tokens.length > 28);
      const room = Math.min(28, (figure.clientWidth / parseFloat(getComputedStyle(document.documentElement).fontSize)) - 7.5);
      table.style.setProperty("--cell", `${Math.max(0.85, Math.min(1.9, room / tokens.length)).toFixed(2)}rem`);
      place = [Math.min(place[0], tokens.length - 1), Math.min(place[1], tokens.length - 1)];
      cellAt(...place).tabIndex = 0;
      figure.querySelector("[data-largest]").textContent = (largest / 1000).toFixed(3);
      figure.querySelectorAll(".sheet").forEach((sheet) => { sheet.hidden = Number(sheet.dataset.sentence) !== sentence; });
      thumbs.forEach((thumb) => {
        thumb.setAttribute("aria-pressed", Number(thumb.dataset.layer) === layer && Number(thumb.dataset.head) === head);
      });
    };

    const show = (cell) => {
      const { row, column, weight: value } = cell.dataset;
      const tokens = data.sentences[choose.sentence.value];
      showTip(cell, `${tokens[row]} → ${tokens[column]}: ${value}`);
      say(readout, "query ", tokens[row], " → key ", tokens[column], ": ", value);
      table.querySelectorAll("th.on").forEach((name) => name.classList.remove("on"));
      table.rows[row].cells[0].classList.add("on");
      table.rows[tokens.length].cells[Number(column) + 1].classList.add("on");
    };
    table.addEventListener("pointerover", (event) => { const cell = event.target.closest("td[data-row]"); if (cell) show(cell); });
    table.addEventListener("pointerleave", hideTip);
    table.addEventListener("focusin", (event) => {
      const cell = event.target.closest("td[data-row]");
      if (!cell) return;
      rove(cell, cellAt(...place) === cell ? null : cellAt(...place));
      place = [Number(cell.dataset.row), Number(cell.dataset.column)];
      show(cell);
    });
    table.addEventListener("focusout", hideTip);
    table.addEventListener("keydown", (event) => {
      const [row, column] = place;
      const last = cells.length - 1;
      const next = {
        ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
        Home: [row, 0], End: [row, last],
      }[event.key];
      if (event.key === "Escape") hideTip();
      if (!next) return;
      event.preventDefault();
      cellAt(...next)?.focus();
    });

    choose.sentence.addEventListener("change", drawMap);
    choose.layer.addEventListener("change", () => { fillHeads(); drawMap(); });
    choose.head.addEventListener("change", drawMap);
    thumbs.forEach((thumb) => thumb.addEventListener("click", () => {
      choose.layer.value = thumb.dataset.layer;
      fillHeads();
      choose.head.value = thumb.dataset.head;
      drawMap();
    }));
    fillHeads();
    drawMap();
  }
})();
