//! Suggestions for misspelt names: "did you mean …?"

/// ` (did you mean "x"?)` if an entry of `known` is similar to `name`, otherwise an empty text.
pub(crate) fn near<S: AsRef<str>>(name: &str, known: &[S]) -> String {
    nearest(name, known).map_or_else(String::new, |best| format!(" (did you mean {best:?}?)"))
}

/// The entry of `known` that is most similar to `name`, if one is similar enough.
pub(crate) fn nearest<'a, S: AsRef<str>>(name: &str, known: &'a [S]) -> Option<&'a str> {
    let likeness = |k: &str| {
        let (a, b) = (name.to_lowercase(), k.to_lowercase());
        // A key that begins like the other counts as similar.
        if a.len() >= 3 && (a.starts_with(&b) || b.starts_with(&a)) {
            1.0
        } else {
            strsim::normalized_damerau_levenshtein(&a, &b)
        }
    };
    known
        .iter()
        .map(|k| (likeness(k.as_ref()), k.as_ref()))
        .filter(|(score, _)| *score >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// The unknown key or variant in serde's error message, and the names that would have been accepted.
pub(crate) fn unknown(message: &str) -> Option<(String, Vec<String>)> {
    let line = message
        .lines()
        .find(|l| l.contains("unknown field `") || l.contains("unknown variant `"))?;
    let mut quoted = line.split('`').skip(1).step_by(2).map(str::to_string);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

/// The message, with a suggestion if it reports an unknown key or variant.
pub(crate) fn explain(message: &str) -> String {
    let message = message.trim_end();
    // The TOML parser reports deeply nested lists and dotted keys in these words.
    if message.contains("cannot recurse further") || message.contains("recursion limit") {
        return format!("{message}: tables or lists are nested too deeply; use fewer levels");
    }
    match unknown(message) {
        Some((name, known)) => match nearest(&name, &known) {
            Some(best) => format!("{message}\ndid you mean `{best}`?"),
            None => message.to_string(),
        },
        None => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_for_a_misspelt_one() {
        let known = ["epochs", "batch", "seed"];
        assert_eq!(nearest("epocs", &known), Some("epochs"));
        assert_eq!(nearest("batch_size", &known), Some("batch"));
        assert_eq!(nearest("Seed", &known), Some("seed"));
        assert_eq!(nearest("momentum", &known), None);
    }

    #[test]
    fn serdes_message_is_parsed() {
        let message = "unknown field `epocs`, expected one of `epochs`, `batch`";
        assert_eq!(
            unknown(message),
            Some(("epocs".into(), vec!["epochs".into(), "batch".into()]))
        );
        assert!(explain(message).ends_with("did you mean `epochs`?"));
        assert_eq!(explain("missing field `batch`"), "missing field `batch`");
    }
}
