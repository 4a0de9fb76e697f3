(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const names = { auto: "Colours: as the system", light: "Colours: light", dark: "Colours: dark" };
  const kept = () => { try { return localStorage.getItem("hindcast-theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("hindcast-theme", theme); } catch { /* a page on disk may not keep anything */ } };
  const show = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = theme;
    button.textContent = names[theme];
  };
  let theme = names[kept()] ? kept() : "auto";
  show(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    const order = dark.matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
    theme = order[(order.indexOf(theme) + 1) % order.length];
    keep(theme);
    show(theme);
  });
})();
