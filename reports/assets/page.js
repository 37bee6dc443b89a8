"use strict";
// Theme, navigation, filter. The page can be read without any of it.
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // A page opened from a file may have no storage: the theme is then forgotten on reload.
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const remember = (theme) => { try { theme ? localStorage.setItem("theme", theme) : localStorage.removeItem("theme"); } catch { /* no storage */ } };
  const button = document.querySelector(".theme");
  const setTheme = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.textContent = { light: "☀", dark: "☾" }[theme] ?? "◐";
    button.setAttribute("aria-label", "Colours: " + (theme ?? "as the system"));
    button.title = button.getAttribute("aria-label");
  };
  setTheme({ light: "light", dark: "dark" }[remembered()]);
  button.addEventListener("click", () => {
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const order = [undefined, isDark ? "light" : "dark", isDark ? "dark" : "light"];
    const next = order[(order.indexOf(root.dataset.theme) + 1) % 3];
    setTheme(next);
    remember(next);
  });

  const nav = document.getElementById("nav");
  const menu = document.querySelector(".menu");
  const openNav = (open) => { nav.classList.toggle("open", open); menu.setAttribute("aria-expanded", open); };
  menu.addEventListener("click", () => openNav(!nav.classList.contains("open")));
  nav.addEventListener("click", (event) => { if (event.target.closest("a")) openNav(false); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && nav.classList.contains("open")) { openNav(false); menu.focus(); }
  });

  // The exercise in view is marked in the navigation.
  const links = new Map([...nav.querySelectorAll("li a")].map((link) => [link.hash.slice(1), link]));
  const inView = new Set();
  let current;
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? inView.add(entry.target) : inView.delete(entry.target);
    const first = [...inView].sort((a, b) => a.offsetTop - b.offsetTop).at(-1);
    const link = first && links.get(first.id);
    if (link === current) return;
    current?.removeAttribute("aria-current");
    current = link;
    if (!link) return;
    link.setAttribute("aria-current", "true");
    const box = link.getBoundingClientRect();
    if (box.top < 60 || box.bottom > innerHeight - 20) nav.scrollTo({ top: nav.scrollTop + box.top - innerHeight / 2 });
  }, { rootMargin: "0px 0px -70% 0px" });
  document.querySelectorAll(".exercise").forEach((section) => observer.observe(section));

  const text = document.getElementById("filter-text"); // of the list of exercises, where the page has one
  if (text) {
    const status = document.getElementById("filter-status");
    const count = document.getElementById("filter-count");
    const rows = [...document.querySelectorAll(".exercises tbody tr")];
    const filter = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean) // each at the start of a word: "rope" is not in "properties"
        .map((word) => new RegExp("(?<![\\p{L}\\p{N}])" + word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "u"));
      let shown = 0;
      for (const row of rows) {
        const matches = words.every((word) => word.test(row.dataset.text))
          && (!status.value || row.dataset.status.split(" ").includes(status.value));
        row.hidden = !matches;
        nav.querySelector(`[data-row="${row.dataset.row}"]`).hidden = !matches;
        shown += matches;
      }
      for (const table of document.querySelectorAll(".exercises")) table.hidden = !table.querySelector("tbody tr:not([hidden])");
      count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
      document.getElementById("filter-empty").hidden = shown > 0;
    };
    text.addEventListener("input", filter);
    status.addEventListener("change", filter);
    if (text.value || status.value) filter();
  }

  // What is folded is opened for paper, and folded again.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((element) => { element.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((element) => { element.open = false; }));
})();
