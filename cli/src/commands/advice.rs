//! Advice for errors of the library. The library says what is wrong; the program adds which flag helps.

use candle_core::DType;
use hindcast_analyzer::AnalysisError;
use hindcast_analyzer::error::{
    Assumption, BadNames, BrokenAssumption, Missing, NoKernels, PrunedFrom, Unsupported,
};
use hindcast_format::FormatError;

use crate::args::IDENTITY_VARIABLE;

/// Advice for the first error of the chain that has one.
pub(super) fn advice(error: &anyhow::Error) -> Option<String> {
    let advice = first(error)?;
    Some(match error.downcast_ref::<DataOf>() {
        Some(DataOf(option)) => advice.replace("--data", option),
        None => advice,
    })
}

/// What the user can do about an error, or what follows from it. As a context of the error, it is printed after the causes.
#[derive(Debug)]
pub(crate) struct Remedy(pub String);

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The option that gave the data, if it isn't --data.
#[derive(Debug)]
pub(crate) struct DataOf(pub &'static str);

impl std::fmt::Display for DataOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

fn first(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let analysis = cause.downcast_ref::<AnalysisError>();
        analysis
            .and_then(of_analysis)
            .or_else(|| cause.downcast_ref().and_then(of_format))
            .or_else(|| of_recording(cause))
    })
}

/// The library advises calls of its own interface; these are the flags for them.
#[cfg(feature = "record")]
fn of_recording(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let full = matches!(
        cause.downcast_ref(),
        Some(hindcast_recorder::RecorderError::QueueFull { .. })
    );
    full.then(|| {
        "on this command line: --when-full block (training waits for storage) or --when-full skip (steps are recorded without their tensors); \
         record --resume RUN continues this run"
            .to_owned()
    })
}

#[cfg(not(feature = "record"))]
fn of_recording(_: &(dyn std::error::Error + 'static)) -> Option<String> {
    None
}

fn of_format(error: &FormatError) -> Option<String> {
    matches!(error, FormatError::Locked { .. }).then(|| {
        format!(
            "give the file with your secret key of age: --identity FILE, or the environment variable {IDENTITY_VARIABLE}"
        )
    })
}

fn of_analysis(error: &AnalysisError) -> Option<String> {
    let text = match error {
        AnalysisError::Missing(missing) => return of_missing(missing),
        AnalysisError::Unsupported(Unsupported::Bounds { broken }) => return of_bounds(broken),
        AnalysisError::Unsupported(Unsupported::Adjoint { .. }) => {
            "rank with `influence --method tracin`, or retrain with `counterfactual`"
        }
        AnalysisError::Unsupported(Unsupported::RowsDepend) => "--threads 1",
        AnalysisError::Unsupported(Unsupported::Penalties { .. }) => {
            "say which with --method-set penalty=VALUE"
        }
        AnalysisError::Damaged(_) => "run `hindcast verify` on the trace",
        AnalysisError::NotFinite { dtype, .. } => match dtype {
            DType::F64 => "use a shorter window (--window last-epoch)",
            _ => "use a shorter window (--window last-epoch) or float64 (--precision f64)",
        },
        AnalysisError::OtherData {
            labels,
            labels_given,
            ..
        } => match (labels.is_some(), labels_given) {
            (true, _) => {
                "point --data at the recorded files, and --labels at the labels that the run was recorded with"
            }
            (false, true) => {
                "leave out --labels, because the run was recorded with the labels of its data"
            }
            (false, false) => "point --data at the recorded files",
        },
        AnalysisError::NoKernels(NoKernels::OwnModel) => {
            "leave out --engine, or use --engine autodiff"
        }
        AnalysisError::NoKernels(NoKernels::Device) => {
            "leave out --device, or use --engine autodiff"
        }
        AnalysisError::NoKernels(_) => "use --engine autodiff",
        AnalysisError::NoTable { .. } => "`influence RUN --out TABLE` writes one",
        AnalysisError::NotResults { .. } => "`counterfactual --out FILE` writes one",
        AnalysisError::EmptySplit { split, filled, .. } => return of_empty_split(split, filled),
        AnalysisError::SweepUnderWay { .. } => "--resume continues it",
        AnalysisError::OtherSweep { .. } => {
            "repeat the command that was interrupted, with --resume, or move the file away to start again"
        }
        AnalysisError::Names { problem, .. } => return of_names(problem).map(str::to_owned),
        _ => return None,
    };
    Some(text.to_owned())
}

/// Where the missing steps are. A run may lack steps although it was recorded with `--keep all`: they were skipped, lost when storage failed,
/// or damaged.
fn whole(pruned_from: Option<&PrunedFrom>) -> &'static str {
    match pruned_from {
        Some(_) => "analyse the run from which this one was pruned",
        None => "record a run that holds every step (--keep all, and none skipped or lost)",
    }
}

fn of_missing(missing: &Missing) -> Option<String> {
    Some(match missing {
        Missing::Model { .. } => "name one of these with --at step:N".to_owned(),
        Missing::Window {
            newest: Some(steps),
            pruned_from,
            ..
        }
        | Missing::Walked {
            longest: Some(steps),
            pruned_from,
            ..
        } => format!(
            "use --window {}..{}, or {}",
            steps.start,
            steps.end,
            whole(pruned_from.as_deref())
        ),
        Missing::Window {
            newest: None,
            pruned_from: Some(_),
            ..
        } => "analyse the run from which this one was pruned".to_owned(),
        Missing::Window { newest: None, .. } => {
            "record with --keep all, last-epoch or last-steps, so that the run holds its last step; a run that was recorded so has lost or skipped it".to_owned()
        }
        Missing::Walked {
            longest: None,
            pruned_from,
            ..
        } => format!("choose another window, or {}", whole(pruned_from.as_deref())),
        Missing::NeverRecordedState { .. } => {
            "`record --keep all` keeps a run from its first step".to_owned()
        }
        Missing::LostState {
            later: Some(steps), ..
        } => format!("use --window {}..{}", steps.start, steps.end),
        _ => return None,
    })
}

fn of_empty_split(split: &str, filled: &[&str]) -> Option<String> {
    // Test examples say how the model does on examples that it wasn't trained on.
    let other = filled.iter().find(|s| **s == "test").or(filled.first())?;
    Some(format!(
        "write {other} in place of {split}, or record with {split} examples: draw them (--set data.{split}=N) or name their files \
         (data.{split}_files in the task). `clean` needs none"
    ))
}

/// Advice for the broken assumptions that a flag can satisfy. All are named: satisfying one of them alone would only lead to the
/// next refusal.
fn of_bounds(broken: &[BrokenAssumption]) -> Option<String> {
    let mut advice: Vec<&str> = Vec::new();
    for text in broken.iter().filter_map(|b| of_assumption(b.assumption)) {
        if !advice.contains(&text) {
            advice.push(text);
        }
    }
    (!advice.is_empty()).then(|| advice.join("; and "))
}

/// Advice for a broken assumption of the bounds, if a flag or another way of training helps.
pub(super) fn of_assumption(assumption: Assumption) -> Option<&'static str> {
    match assumption {
        Assumption::OnePass => Some("train for one epoch, or use --window last-epoch"),
        Assumption::KnownDerivatives => {
            Some("--constants LARGEST-EIGENVALUE,LIPSCHITZ,GRADIENT gives the bounds for Theorem 6")
        }
        _ => None,
    }
}

fn of_names(problem: &BadNames) -> Option<&'static str> {
    if problem.may_be_by_index() {
        return Some("--names-by index names the examples by index");
    }
    match problem {
        BadNames::Column { .. } => Some("--name-column COLUMN chooses it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(error: AnalysisError) -> String {
        advice(&anyhow::Error::from(error)).unwrap_or_default()
    }

    #[test]
    fn a_float64_run_is_not_advised_to_use_float64() {
        let at = |dtype| {
            let what = "the sensitivity".to_owned();
            let step = 3;
            said(AnalysisError::NotFinite { step, what, dtype })
        };
        let narrow = at(DType::F32);
        assert!(narrow.contains("--precision f64"), "{narrow}");
        let wide = at(DType::F64);
        assert!(
            wide.contains("--window last-epoch") && !wide.contains("64"),
            "{wide}"
        );
    }

    #[test]
    fn other_data_or_labels_are_mended_where_they_were_given() {
        let error = |labels: Option<&str>, labels_given| AnalysisError::OtherData {
            run: "run".into(),
            differing: String::new(),
            labels: labels.map(str::to_owned),
            labels_given,
        };
        assert_eq!(
            said(error(None, false)),
            "point --data at the recorded files"
        );
        let left_out = said(error(None, true));
        assert!(left_out.starts_with("leave out --labels"), "{left_out}");
        let labels = said(error(Some("labels.csv"), false));
        assert!(
            labels.ends_with("and --labels at the labels that the run was recorded with"),
            "{labels}"
        );
        let second = anyhow::Error::from(error(None, false)).context(DataOf("--other-data"));
        let second = advice(&second).unwrap_or_default();
        assert_eq!(second, "point --other-data at the recorded files");
    }

    #[test]
    fn the_advice_names_a_window_that_can_be_swept() {
        let window = |newest| {
            said(AnalysisError::Missing(Missing::Window {
                window: "all".to_owned(),
                needed: 0..10,
                holes: vec![3..5, 6..8],
                newest,
                pruned_from: None,
            }))
        };
        let narrower = window(Some(8..10));
        assert!(narrower.contains("--window 8..10"), "{narrower}");
        assert!(window(None).starts_with("record with --keep all"));
    }

    #[test]
    fn advice_for_the_bounds_is_given_once() {
        let broken = [
            Assumption::PlainSgd,
            Assumption::OnePass,
            Assumption::OnePass,
        ]
        .map(|assumption| BrokenAssumption {
            theorems: None,
            assumption,
            evidence: "numbers".to_owned(),
        });
        let broken = broken.to_vec();
        let text = said(AnalysisError::Unsupported(Unsupported::Bounds { broken }));
        assert_eq!(text.matches("--window last-epoch").count(), 1, "{text}");
    }
}
