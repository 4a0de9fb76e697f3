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
(() => {
  // One query or table at a time.
  const choice = document.getElementById("choice");
  if (choice) {
    const select = choice.querySelector("select");
    const show = () => {
      for (const part of document.querySelectorAll("[data-view]")) {
        part.classList.toggle("off", select.value !== "all" && part.dataset.view !== select.value);
      }
    };
    select.addEventListener("change", show);
    select.value = "0";
    choice.hidden = false;
    show();
  }
  // Commands that can be copied.
  for (const command of document.querySelectorAll("pre.command")) {
    // A line breaks after a hyphen, which would cut `--data` in two.
    const words = command.textContent.split(" ").map((word) => {
      const span = document.createElement("span");
      span.textContent = word;
      return span;
    });
    command.replaceChildren(...words.flatMap((word, k) => (k ? [" ", word] : [word])));
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    const line = document.createElement("div");
    line.className = "line";
    command.replaceWith(line);
    line.append(command, button);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command.textContent);
      } catch {
        getSelection().selectAllChildren(command);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
  // Tables that can be sorted and filtered.
  const number = (text) => {
    const plain = text.replaceAll("\u2212", "-").replaceAll(/[\s,\u202f]/g, "");
    return plain === "" ? NaN : Number(plain);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    if (rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (head.classList.contains("pictured")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].textContent;
        const order = (a, b) => {
          const [x, y] = [number(text(a)), number(text(b))];
          return Number.isNaN(x) || Number.isNaN(y) ? text(a).localeCompare(text(b)) : x - y;
        };
        body.append(...rows.sort((a, b) => (down ? order(b, a) : order(a, b))));
      });
    });
    // The ten rows of the answer are followed by a longer table.
    if (rows.length < 8 || table.closest("#answer")) continue;
    const label = document.createElement("label");
    label.className = "filter";
    const field = document.createElement("input");
    field.type = "search";
    label.append("Rows that contain ", field);
    table.parentElement.before(label);
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }
  // A printed page shows everything.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const fold of folded) fold.open = true;
  });
  addEventListener("afterprint", () => { for (const fold of folded) fold.open = false; });
})();
