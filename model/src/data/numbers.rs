//! Texts that spell numbers: labels, categories and class names.

/// A number parsed from a text. Whole numbers are compared exactly, because different large numbers can be equal as
/// floats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    /// The number that a text spells. `None` for other texts and for numbers that are not finite.
    pub(super) fn of(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        let float: f64 = text.parse().ok().filter(|x: &f64| x.is_finite())?;
        // Up to 2⁵³, a float without a fraction is exactly the written number.
        let exact = float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
        Some(if exact {
            Self::Whole(float as i128)
        } else {
            Self::Float(float)
        })
    }

    fn value(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Float(x) => x,
        }
    }

    /// Orders by value as floats, then whole numbers first, then whole numbers exactly.
    pub(super) fn order(self, other: Self) -> std::cmp::Ordering {
        let exact = |n| match n {
            Self::Whole(n) => (0, n),
            Self::Float(_) => (1, 0),
        };
        let by_value = self.value().total_cmp(&other.value());
        by_value.then_with(|| exact(self).cmp(&exact(other)))
    }
}

/// Whether two texts spell the same number.
pub(crate) fn same_number(a: &str, b: &str) -> bool {
    Number::of(a).is_some_and(|a| Number::of(b) == Some(a))
}

/// Whether each of the texts spells a number.
pub(crate) fn all_numbers(texts: &[String]) -> bool {
    texts.iter().all(|text| Number::of(text).is_some())
}

/// For a text that spells a number in [0, 1]: whether the number has a fraction. `None` for other texts.
pub(crate) fn is_share(text: &str) -> Option<bool> {
    let number = Number::of(text).filter(|n| (0.0..=1.0).contains(&n.value()))?;
    Some(matches!(number, Number::Float(_)))
}
