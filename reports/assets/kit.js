// What the modules after this one share: elements, numbers as the page writes them, text to take away.
const kit = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes, children, element) => {
    for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const element = (name, attributes = {}, ...children) => make(name, attributes, children, document.createElement(name));
  const drawn = (name, attributes = {}, ...children) => make(name, attributes, children, document.createElementNS(SVG, name));
  const data = (figure) => JSON.parse(figure.querySelector('script[type="application/json"]').textContent);

  // Numbers as reports/formats.py writes them: "1.2346", "50,257", "3.2×10⁻⁷", "–" for none.
  const minus = (text) => text.replaceAll("-", "−");
  const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  const commas = (text) => text.replace(/^(-?\d+)/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));
  const raised = (exponent) => [...String(exponent)].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
  const number = (value, digits = 5) => {
    if (value === null || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const grouped = (text) => minus(size >= 10_000 ? commas(text) : text);
    if (Number.isInteger(value) && size < 1e12) return grouped(String(value));
    const exponent = Math.floor(Math.log10(size));
    if (exponent < -4 || exponent >= 7) {
      const [mantissa, power] = value.toExponential(digits - 1).split("e");
      return minus(trim(mantissa)) + "×10" + raised(Number(power));
    }
    return grouped(trim(value.toFixed(Math.max(0, digits - 1 - exponent))));
  };

  // What one takes away is made here, of what is on the page: nothing is embedded twice.
  const save = (name, content) => {
    const link = element("a", { href: URL.createObjectURL(content), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page from a file may not have a clipboard
      const area = element("textarea", { class: "visually-hidden", "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  return { element, drawn, data, number, save, copy };
})();
