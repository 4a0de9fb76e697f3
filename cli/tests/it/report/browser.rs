//! Opens the page in a real browser: there are no errors, nothing is too wide for a phone, and the colours can be switched.
//!
//! Needs Chromium or Chrome (on the path, or named by `HINDCAST_BROWSER`). Without one, the test is skipped with a message.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::scored_run;
use crate::cli::fine;

const PROGRAMS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("HINDCAST_BROWSER") {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| PROGRAMS.map(|name| folder.join(name)))
        .find(|program| program.is_file())
}

/// A page's DOM after its scripts have run, and the messages of the browser's console.
struct Opened {
    dom: String,
    console: Vec<String>,
}

fn open(browser: &Path, page: &Path, dir: &Path, more: &[&str]) -> Opened {
    let profile = tempfile::tempdir_in(dir).unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ])
        .args(more)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .expect("the browser starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    Opened {
        dom: String::from_utf8_lossy(&output.stdout).into_owned(),
        console: said
            .lines()
            .filter(|line| line.contains("CONSOLE"))
            .map(str::to_owned)
            .collect(),
    }
}

/// A page that shows `page` in a frame as wide as a phone, inspects it, presses its button, and writes down the results.
fn on_a_phone(page: &str, width: u32) -> String {
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        r##"<!doctype html><meta charset="utf-8"><title>phone</title>
<iframe id="phone" width="{width}" height="700" style="border:0" srcdoc="{quoted}"></iframe><pre id="seen"></pre>
<script>
document.getElementById("phone").addEventListener("load", () => {{
  const frame = document.getElementById("phone"), page = frame.contentDocument, view = frame.contentWindow;
  const all = [...page.querySelectorAll("main *, header *")];
  const inside = (e) => e.closest(".scroll, nav, svg");
  const wide = all.filter((e) => !inside(e) && e.getBoundingClientRect().right > {width} + 1).map((e) => e.outerHTML.slice(0, 80));
  const shown = (e) => view.getComputedStyle(e).display !== "none";
  const plots = [...page.querySelectorAll(".plot > div")].filter(shown).map((e) => e.className);
  const button = page.getElementById("theme");
  const paper = () => view.getComputedStyle(page.body).backgroundColor;
  const papers = [paper()];
  for (let i = 0; i < 2; i++) {{ button.focus(); button.click(); papers.push(paper()); }}
  const reached = [...page.querySelectorAll("a[href], button, summary, [tabindex]")].filter((e) => {{ e.focus(); return page.activeElement === e; }}).length;
  const text = [...page.querySelectorAll("p, td, th, li, figcaption, summary, h2, h3, h4, .plot text")].filter((e) => shown(e) && e.closest("details:not([open])") === null && e.getClientRects().length > 0);
  const rgb = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (c) => {{ const [r, g, b] = c.map((v) => {{ v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }}); return 0.2126 * r + 0.7152 * g + 0.0722 * b; }};
  const behind = (e) => {{ for (; e; e = e.parentElement) {{ const c = rgb(view.getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c.slice(0, 3); }} return [255, 255, 255]; }};
  const faint = [], lines = [];
  for (const theme of ["light", "dark"]) {{
    page.documentElement.dataset.theme = theme;
    for (const e of text) {{
      const style = view.getComputedStyle(e);
      const a = light(rgb(e.closest("svg") ? style.fill : style.color).slice(0, 3)), b = light(behind(e));
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) faint.push(theme + " " + ratio.toFixed(2) + " " + e.outerHTML.slice(0, 80));
    }}
    for (const e of page.querySelectorAll('.plot [stroke="#8C8A82"]')) {{
      const a = light(rgb(view.getComputedStyle(e).stroke).slice(0, 3)), b = light(behind(e));
      lines.push((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }}
  }}
  const select = page.querySelector("#choice select"), visible = () => page.querySelectorAll("#influence [data-view]:not(.off)").length;
  const views = [visible()];
  const covered = page.querySelector("nav").offsetHeight - parseFloat(view.getComputedStyle(page.documentElement).scrollPaddingTop);
  const cut = [...page.querySelectorAll(".scroll caption")].filter((e) => e.offsetWidth > e.closest(".scroll").clientWidth).length;
  for (const value of ["1", "all"]) {{ select.value = value; select.dispatchEvent(new Event("change")); views.push(visible()); }}
  const table = page.querySelector("#classes table"), heads = table.tHead.rows[0].cells;
  const sort = heads[1].querySelector("button"), counts = () => [...table.tBodies[0].rows].map((r) => Number(r.cells[1].textContent));
  const sorted = [];
  for (let i = 0; i < 2; i++) {{ sort.focus(); sort.click(); sorted.push(heads[1].getAttribute("aria-sort"), counts()); }}
  const filter = page.querySelector("#classes .filter input");
  filter.value = counts()[0]; filter.dispatchEvent(new Event("input"));
  const left = [...table.tBodies[0].rows].filter((r) => !r.hidden).length;
  view.dispatchEvent(new Event("beforeprint"));
  const closed = page.querySelectorAll("details:not([open])").length;
  document.getElementById("seen").textContent = JSON.stringify({{
    views, covered, cut, lines, sorted, left, rows: counts().length, closed, copies: page.querySelectorAll("pre.command + .copy").length, commands: page.querySelectorAll("pre").length,
    scroll: page.documentElement.scrollWidth, wide: wide.slice(0, 5), plots, papers, hidden: button.hidden, reached, checked: text.length, faint: faint.slice(0, 5),
    nameless: page.querySelectorAll("img:not([alt]), th:not([scope])").length, pictures: [...page.images].filter((i) => i.complete && i.naturalWidth > 0).length, images: page.images.length,
  }});
}});
</script>"##
    )
}

/// Checks that the page's table of examples was sorted both ways, and filtered.
fn sorted_and_filtered(seen: &Value) {
    let counts = |at: usize| -> Vec<u64> {
        let list = seen["sorted"][at].as_array().unwrap().iter();
        list.map(|n| n.as_u64().unwrap()).collect()
    };
    assert_eq!(
        (&seen["sorted"][0], &seen["sorted"][2]),
        (&"ascending".into(), &"descending".into())
    );
    assert!(
        counts(1).is_sorted() && counts(3).iter().rev().is_sorted(),
        "{seen}"
    );
    let (left, rows) = (
        seen["left"].as_u64().unwrap(),
        seen["rows"].as_u64().unwrap(),
    );
    assert!(left >= 1 && left < rows, "{seen}");
}

#[test]
fn a_browser_opens_the_page_without_errors() {
    let Some(browser) = browser() else {
        eprintln!("skipped: there is no Chromium or Chrome here (HINDCAST_BROWSER names one)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    scored_run(dir);
    fine(
        dir,
        &[
            "report",
            "run",
            "full.csv",
            "last.csv",
            "--removed",
            "removed.json",
            "--top",
            "5",
        ],
    );

    // Check that an error would be noticed.
    fs::write(
        dir.join("bad.html"),
        "<script>console.error('so')</script><img src='https://example.invalid/a.png'>",
    )
    .unwrap();
    let bad = open(&browser, &dir.join("bad.html"), dir, &[]);
    assert!(
        bad.console.iter().any(|line| line.contains("so")),
        "the console's messages are not captured"
    );

    let opened = open(&browser, &dir.join("report.html"), dir, &[]);
    assert_eq!(opened.console, [""; 0]);
    // The button is only visible after the script has run.
    assert!(
        opened.dom.contains("Colours: as the system"),
        "the script hasn't run"
    );

    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    for width in [320, 1200] {
        let phone = dir.join("phone.html");
        fs::write(&phone, on_a_phone(&page, width)).unwrap();
        let opened = open(&browser, &phone, dir, &[]);
        assert_eq!(opened.console, [""; 0], "{width}");
        let begin = opened
            .dom
            .find("<pre id=\"seen\">")
            .expect("the frame was loaded")
            + 15;
        let end = begin + opened.dom[begin..].find("</pre>").unwrap();
        let seen = opened.dom[begin..end]
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        let seen: Value = serde_json::from_str(&seen).unwrap_or_else(|e| panic!("{e}: {seen}"));
        assert!(
            seen["scroll"].as_u64().unwrap() <= u64::from(width),
            "{width}: {seen}"
        );
        assert_eq!(seen["wide"], Value::Array(Vec::new()), "{width}");
        let plots = seen["plots"].as_array().unwrap();
        let expected = if width == 320 { "narrow" } else { "wide" };
        assert!(
            plots.len() >= 6 && plots.iter().all(|p| p == expected),
            "{width}: {seen}"
        );
        assert_eq!(seen["nameless"], 0, "{width}");
        assert_eq!(seen["hidden"], false);
        // Ten of each table, the worst five of each again in the answer, and the twenty most confident mistakes.
        assert_eq!(seen["images"], 50, "{width}: {seen}");
        // One table is visible at first, the other one by choice, or both.
        assert_eq!(seen["views"], serde_json::json!([1, 1, 2]), "{width}");
        sorted_and_filtered(&seen);
        assert_eq!(seen["closed"], 0, "a printed page has no closed folds");
        assert!(seen["copies"].as_u64().unwrap() > 2, "{seen}");
        assert_eq!(seen["copies"], seen["commands"], "{seen}");
        let papers = seen["papers"].as_array().unwrap();
        assert_ne!(
            papers[1], papers[2],
            "the button changes the colours: {seen}"
        );
        assert!(
            seen["reached"].as_u64().unwrap() > 15,
            "by keyboard: {seen}"
        );
        assert!(seen["checked"].as_u64().unwrap() > 100, "{seen}");
        assert!(seen["covered"].as_f64().unwrap() <= 0.0, "{width}: {seen}");
        assert_eq!(seen["cut"], 0, "{width}: captions wider than the page");
        let lines = seen["lines"].as_array().unwrap();
        assert!(
            lines.len() >= 2 && lines.iter().all(|ratio| ratio.as_f64().unwrap() >= 3.0),
            "{width}: {lines:?}"
        );
        assert_eq!(
            seen["faint"],
            Value::Array(Vec::new()),
            "{width}: contrast below 4.5"
        );
    }
}
