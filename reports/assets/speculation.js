// Speculative decoding step by step. Each pass has three: the draft proposes, the target reads, one token is added.
(() => {
  for (const figure of document.querySelectorAll("[data-speculation]")) {
    const slider = figure.querySelector("[data-step]");
    const say = figure.querySelector("[data-say]");
    const table = figure.querySelector(".pass");
    const whole = say.textContent;
    const tokens = [...figure.querySelectorAll(".speculated [data-round]")].map((span) => ({ span, round: Number(span.dataset.round), kind: span.className, text: span.textContent, note: span.title }));
    const added = (token) => token.kind === "replaced" || token.kind === "bonus";
    const stands = (token) => token.kind === "accepted" || added(token);
    const rounds = Math.max(...tokens.map((token) => token.round)) + 1;
    const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

    const show = (step) => {
      const at = Math.max(0, Math.min(3 * rounds, step));
      const [round, stage] = at === 0 ? [-1, 2] : [Math.floor((at - 1) / 3), (at - 1) % 3]; // 0 drafted, 1 read, 2 added
      slider.value = at;
      for (const token of tokens) {
        const past = token.round < round;
        token.span.hidden = token.round > round || (token.round === round && added(token) && stage < 2) || (past && !stands(token) && at < 3 * rounds);
        token.span.className = token.round === round && stage === 0 ? "drafted" : token.kind;
      }
      const mine = tokens.filter((token) => token.round === round);
      const drafted = mine.filter((token) => !added(token));
      const accepted = drafted.filter((token) => token.kind === "accepted");
      const last = mine.find(added);
      const written = tokens.filter((token) => stands(token) && (token.round < round || (token.round === round && stage === 2))).length;
      const bad = drafted.find((token) => token.kind === "rejected");
      say.textContent = at === 3 * rounds ? whole : at === 0 ? "The prompt. Nothing is drafted yet." : [
        `Pass ${round + 1}: ${drafted.length ? `the draft proposes ${plural(drafted.length, "token")}` : "nothing is drafted, the text has room for one token"}.`,
        !drafted.length ? `Pass ${round + 1}: the target reads the text.` : `Pass ${round + 1}: the target reads them in one pass and accepts ${accepted.length} of ${drafted.length}${bad ? `; “${bad.text}” is rejected` : ""}.`,
        `Pass ${round + 1}: “${last?.text}” is ${bad ? `drawn instead of “${bad.text}”` : drafted.length ? "drawn after them, at no further cost" : "drawn"}. ${plural(written, "token")} in ${round + 1 === 1 ? "1 pass" : `${round + 1} passes`}.`,
      ][stage];
      slider.setAttribute("aria-valuetext", say.textContent);
      table.hidden = at === 0 || at === 3 * rounds || !drafted.length;
      const cells = (name, texts) => texts.map((text) => kit.element(name, {}, text));
      table.replaceChildren(
        kit.element("thead", {}, kit.element("tr", {}, ...cells("th", ["drafted", "what draft and target give it", "verdict"]))),
        kit.element("tbody", {}, ...drafted.map((token) => kit.element("tr", {}, ...cells("td", [token.text, token.note, stage ? { accepted: "accepted", rejected: "rejected", unread: "dropped" }[token.kind] : "…"])))));
      for (const button of figure.querySelectorAll("[data-go]")) button.disabled = (/first|back/.test(button.dataset.go) ? at === 0 : at === 3 * rounds);
    };
    const go = { first: () => 0, back: () => Number(slider.value) - 1, on: () => Number(slider.value) + 1, last: () => 3 * rounds };
    for (const button of figure.querySelectorAll("[data-go]")) button.addEventListener("click", () => show(go[button.dataset.go]()));
    slider.addEventListener("input", () => show(Number(slider.value)));
    show(3 * rounds);
  }
})();
