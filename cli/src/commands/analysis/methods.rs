//! `hindcast methods`: list the methods of `influence --method`.

use std::io::Write;

use serde_json::json;

use crate::args::Methods;
use crate::commands::{Outcome, Usage};
use crate::terminal;
use hindcast_analyzer::estimators::{Method, method, methods};

pub(crate) fn run(args: &Methods) -> anyhow::Result<Outcome> {
    let one = match &args.name {
        Some(name) => Some(method(name).map_err(|e| Usage(e.to_string()))?),
        None => None,
    };
    let mut out = terminal::stdout();
    if args.json {
        let asked = match &one {
            Some(one) => std::slice::from_ref(one),
            None => methods(),
        };
        let list: Vec<_> = asked.iter().map(|m| describe(m)).collect();
        serde_json::to_writer_pretty(&mut out, &list)?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    let Some(method) = one else {
        for method in methods() {
            writeln!(out, "{:<18} {}", method.name, method.about)?;
        }
        return Ok(Outcome::Fine);
    };
    writeln!(out, "{}: {}", method.name, method.about)?;
    writeln!(out, "needs:   {}", method.needs)?;
    writeln!(
        out,
        "scores:  {}; {}",
        match (method.predicts, method.asks) {
            (true, _) => "the predicted change of the query without the example",
            (false, true) => "a ranking, not a predicted change",
            (false, false) => "a ranking, not a predicted change; the same for every query",
        },
        if method.windowed {
            "of the steps of --window"
        } else {
            "of the whole run (--window has no meaning)"
        }
    )?;
    writeln!(out, "source:  {}", method.source)?;
    if method.options.is_empty() {
        writeln!(out, "options: none")?;
    }
    for (i, option) in method.options.iter().enumerate() {
        writeln!(
            out,
            "{} {}={}: {}",
            if i == 0 { "options:" } else { "        " },
            option.key,
            option.default,
            option.about
        )?;
    }
    Ok(Outcome::Fine)
}

fn describe(method: &Method) -> serde_json::Value {
    let options = method.options.iter();
    let options: Vec<_> = options
        .map(|o| json!({ "key": o.key, "default": o.default, "about": o.about }))
        .collect();
    json!({
        "name": method.name,
        "about": method.about,
        "needs": method.needs,
        "source": method.source,
        "predicts": method.predicts,
        "asks": method.asks,
        "windowed": method.windowed,
        "options": options,
    })
}
