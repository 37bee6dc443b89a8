// Charts say their values: at the pointer, under a finger, and with the arrow keys.
(() => {
  const spread = (value, [low, high, log]) => (log
    ? (Math.log10(value) - Math.log10(low)) / (Math.log10(high) - Math.log10(low))
    : (value - low) / (high - low));

  // Where the numbers lie in a drawing: see draw() in reports/figures.py.
  const geometry = (svg, bars) => {
    const [left, top, right, bottom, x0, x1, xLog, y0, y1, yLog, sideways] = svg.dataset.plot.split(" ").map(Number);
    const across = (value) => left + spread(value, [x0, x1, xLog]) * (right - left);
    const up = (value) => bottom - spread(value, [y0, y1, yLog]) * (bottom - top);
    const place = (x, y) => (sideways ? [across(y), up(x)] : [across(x), up(y)]);
    const offset = (series) => (bars ? ((series - (bars - 1) / 2) * 0.78) / bars : 0); // bars of a name stand side by side
    return { left, top, right, bottom, sideways, at: (x, y, series) => place(x + offset(series), y) };
  };

  // The places to stop at, from left to right: an x with the value of each series there, or one point of a cloud.
  const stopsOf = (data) => {
    const names = data.named ? [...new Set(data.x.flat())] : null;
    const series = data.series.map((one) => ({ ...one, at: data.x[one.x].map((x) => (names ? names.indexOf(x) : x)) }));
    const said = (x) => (names ? names[x] : kit.number(x));
    if (data.kind === "scatter") {
      const points = series.flatMap((one, index) => one.at.map((x, i) => ({ x, said: said(x), rows: [{ index, i, one }] })));
      return { series, stops: points.filter((p) => p.x !== null && p.rows[0].one.y[p.rows[0].i] !== null).sort((a, b) => a.x - b.x) };
    }
    const nearest = (at, x) => at.reduce((best, value, i) => (value !== null && Math.abs(value - x) < Math.abs(at[best] - x) ? i : best), 0);
    const places = [...new Set(series.flatMap((one) => one.at))].filter((x) => x !== null).sort((a, b) => a - b);
    const stops = places.map((x) => ({
      x,
      said: said(x),
      rows: series.flatMap((one, index) => {
        const exact = one.at.indexOf(x);
        if (exact >= 0) return [{ index, i: exact, one }];
        if (names || x < Math.min(...one.at) || x > Math.max(...one.at)) return [];
        const i = nearest(one.at, x); // a series with other steps: its nearest point, whose own x is said with it
        return [{ index, i, one, own: said(one.at[i]) }];
      }),
    }));
    return { series, stops };
  };

  const worded = ({ i, one, own }) => {
    const error = one.e?.[i] ? ` ± ${kit.number(one.e[i])}` : "";
    return `${kit.number(one.y[i])}${error}${own === undefined ? "" : ` (at ${own})`}`;
  };

  const attach = (chart, data, { stops, series }, caption) => {
    const svg = chart.querySelector("svg");
    if (!stops.length) return;
    const plot = geometry(svg, data.kind === "bar" ? series.length : 0);
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const mark = kit.drawn("g", { class: "probe-mark", "aria-hidden": "true" });
    const tip = kit.element("div", { class: "probe-tip", hidden: "", "aria-hidden": "true" });
    const probe = kit.element("div", {
      class: "probe", role: "slider", tabindex: "0", "aria-label": `Values: ${caption}`,
      "aria-valuemin": 1, "aria-valuemax": stops.length, "aria-valuenow": 1,
    });
    svg.append(mark);
    chart.append(probe, tip);
    let at = 0;

    const spot = ({ x }, { index, i, one }) => plot.at(one.at[i] ?? x, one.y[i], index);
    const seen = (stop) => stop.rows.filter(({ one, i }) => one.y[i] !== null);
    const say = () => {
      const stop = stops[at];
      const head = data.named ? stop.said : `${data.labels[0]} ${stop.said}`;
      probe.setAttribute("aria-valuenow", at + 1);
      probe.setAttribute("aria-valuetext", `${head}: ${stop.rows.map((row) => `${row.one.name} ${worded(row)}`).join(", ")}`);
      return [stop, head];
    };
    const show = (index) => {
      at = Math.max(0, Math.min(stops.length - 1, index));
      const [stop, head] = say();
      const places = seen(stop).map((row) => [...spot(stop, row), row.one.colour]);
      const rule = places.length && data.kind !== "bar" && data.kind !== "scatter"
        ? [kit.drawn("path", { d: `M${places[0][0]} ${plot.top}V${plot.bottom}` })] : [];
      mark.replaceChildren(...rule, ...places.map(([cx, cy, colour]) => kit.drawn("circle", { cx, cy, r: 4.5, style: `fill:var(--c${colour})` })));
      tip.replaceChildren(kit.element("b", {}, head), ...stop.rows.map((row) => kit.element("span", {},
        kit.element("i", { style: `background:var(--c${row.one.colour})` }), `${row.one.name} `, kit.element("span", { class: "value" }, worded(row)))));
      tip.hidden = false;
      const box = svg.getBoundingClientRect();
      const scale = box.width / width;
      const x = places.length ? places[0][0] * scale : box.width / 2;
      const y = places.length ? Math.min(...places.map((place) => place[1])) * scale : 0;
      const room = chart.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(room, x + 14 > room ? x - tip.offsetWidth - 14 : x + 14))}px`;
      tip.style.top = `${Math.max(0, Math.min(height * scale - tip.offsetHeight, y - tip.offsetHeight / 2))}px`;
    };
    const hide = () => { tip.hidden = true; mark.replaceChildren(); };

    const pick = (event) => {
      const box = svg.getBoundingClientRect();
      const [px, py] = [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
      const distance = (stop) => {
        const [x, y] = stop.rows.length ? spot(stop, stop.rows[0]) : plot.at(stop.x, 0, 0);
        if (data.kind === "scatter") return Math.hypot(x - px, y - py);
        if (data.kind === "bar") return plot.sideways ? Math.abs(plot.at(stop.x, 0, (series.length - 1) / 2)[1] - py) : Math.abs(plot.at(stop.x, 0, (series.length - 1) / 2)[0] - px);
        return Math.abs(plot.at(stop.x, 1, 0)[0] - px);
      };
      show(stops.reduce((best, stop, index) => (distance(stop) < distance(stops[best]) ? index : best), 0));
    };
    probe.addEventListener("pointermove", pick);
    probe.addEventListener("pointerdown", pick);
    probe.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
    probe.addEventListener("focus", () => show(at));
    probe.addEventListener("blur", hide);
    probe.addEventListener("keydown", (event) => {
      const far = Math.max(1, Math.round(stops.length / 10));
      const next = {
        ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1,
        PageUp: at + far, PageDown: at - far, Home: 0, End: stops.length - 1,
      }[event.key];
      if (event.key === "Escape") hide();
      if (next === undefined) return;
      event.preventDefault();
      show(next);
    });
    say();
  };

  for (const figure of document.querySelectorAll("[data-chart]")) {
    const data = kit.data(figure);
    const found = stopsOf(data);
    const caption = figure.querySelector("figcaption")?.firstChild.textContent ?? data.labels[1];
    for (const chart of figure.querySelectorAll(".chart")) attach(chart, data, found, caption);
  }
})();
