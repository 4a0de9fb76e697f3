//! The number of threads of a verb that computes.

use std::num::NonZeroUsize;

use clap::Args;

/// On how many threads a verb computes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Threads {
    /// Number of threads that compute, at most eight per core of this machine [default: RAYON_NUM_THREADS, or the number of cores; a program with its own model leaves busy cores alone]
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub threads: Option<NonZeroUsize>,
}

/// Parses a number of threads, or of runs that train at the same time. More threads than this spend their time waiting for each
/// other, which looks as if the program hung.
pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let most = most();
    let parsed = text.trim().parse::<NonZeroUsize>();
    parsed.ok().filter(|n| n.get() <= most).ok_or_else(|| {
        format!("expected a whole number from 1 to {most} ({PER_CORE} per core of this machine)")
    })
}

/// As [`threads`], with 0 for the number of cores.
#[cfg(feature = "record")]
pub(super) fn threads_or_all(text: &str) -> Result<usize, String> {
    if text.trim() == "0" {
        return Ok(0);
    }
    threads(text).map(usize::from)
}

const PER_CORE: usize = 8;

fn most() -> usize {
    PER_CORE * std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_threads_has_a_limit_that_the_error_names() {
        let most = most();
        assert_eq!(threads("1").unwrap().get(), 1);
        assert_eq!(threads(&most.to_string()).unwrap().get(), most);
        for text in [
            "0",
            "-1",
            "many",
            "1.5",
            &(most + 1).to_string(),
            "99999999999999999999",
        ] {
            let said = threads(text).unwrap_err();
            assert!(
                said.contains(&format!("from 1 to {most}")),
                "{text}: {said}"
            );
        }
    }
}
