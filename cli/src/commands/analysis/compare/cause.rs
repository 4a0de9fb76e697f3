//! Says in one sentence where two runs part, and what is known about the cause.

use super::found::Found;
use hindcast_analyzer::comparison::Parting;

/// One sentence that says where the runs part, and what is known about the cause.
pub(super) fn sentence(found: &Found<'_>) -> String {
    let parting = &found.parting;
    if found.identical() {
        return "the runs are identical: the same batches, learning rates, losses and parameters, bit for bit".to_owned();
    }
    match parting.first_step() {
        Some(first) => parted(parting, first, found.same_data),
        None if parting.compared == 0 => "the runs have no common step".to_owned(),
        None if parting.incomparable.is_some() => {
            "nothing that can be compared differs in the common steps".to_owned()
        }
        None => {
            "nothing differs in the common steps; one run has steps that the other lacks".to_owned()
        }
    }
}

/// Where runs part whose first difference is at step `first`. `same_data` says whether they were trained on the same examples.
fn parted(parting: &Parting, first: u64, same_data: Option<bool>) -> String {
    let at = |step: Option<u64>| step == Some(first);
    if at(parting.parameters.as_ref().map(|d| d.step)) {
        if first == parting.steps.start {
            return format!(
                "the runs part at their first common step, {first}: they begin with other parameters"
            );
        }
        return by_updates(parting, first, same_data);
    }
    let batch = at(parting.batch.as_ref().map(|d| d.step));
    let rate = at(parting.learning_rate.map(|d| d.step));
    let differs = match (batch, rate) {
        (true, true) => "batch and learning rate differ",
        (true, false) => "its batch differs",
        (false, true) => "its learning rate differs",
        (false, false) => {
            return format!(
                "the runs part at step {first}: {}",
                cause_of_loss(parting, first, same_data)
            );
        }
    };
    format!(
        "the runs part at step {first}: {differs}{}",
        unless_earlier(parting, first)
    )
}

/// What isn't known of the parameters before step `first`, whose batch or learning rate differs.
fn unless_earlier(parting: &Parting, first: u64) -> String {
    if parting.incomparable.is_some() {
        return "; the parameters can't be compared".to_owned();
    }
    match parting.last_same(first) {
        Some(same) if same == first => String::new(),
        Some(same) => format!(
            "; the parameters are the same before step {same}, and those before step {first} aren't recorded in both runs"
        ),
        None => {
            format!("; the parameters before step {first} and earlier aren't recorded in both runs")
        }
    }
}

/// The parameters before step `first`, which isn't the first common step, differ; the batches and learning rates up to it don't.
fn by_updates(parting: &Parting, first: u64, same_data: Option<bool>) -> String {
    let causes = |mut others: Vec<&'static str>| {
        others.extend(["another update rule", "other random draws"]);
        listed(others, same_data)
    };
    let by_update = || causes(Vec::new());
    match parting.last_same(first) {
        Some(same) if same + 1 == first => format!(
            "the runs part by the update of step {same}: parameters, batch and learning rate are the same before it, and the parameters differ after it ({})",
            by_update()
        ),
        Some(same) => format!(
            "the runs part by an update of the steps {same} to {}: the parameters are the same before step {same} and differ before step {first}, between which they \
             aren't recorded in both runs; the recorded batches and learning rates are the same ({})",
            first - 1,
            by_update()
        ),
        None => format!(
            "the runs part before step {first}, the first whose parameters are recorded in both runs: they differ, and the recorded batches and learning rates before it \
             are the same ({})",
            causes(vec!["other first parameters"])
        ),
    }
}

/// Only the loss of step `first` differs.
fn cause_of_loss(parting: &Parting, first: u64, same_data: Option<bool>) -> String {
    let causes = |mut others: Vec<&'static str>| {
        others.extend(["another loss", "other random draws"]);
        listed(others, same_data)
    };
    if parting.incomparable.is_some() {
        return "its loss differs; the parameters can't be compared".to_owned();
    }
    let since = match parting.last_same(first) {
        Some(same) if same == first => {
            return format!(
                "its loss differs, although parameters, batch and learning rate are the same ({})",
                causes(Vec::new())
            );
        }
        Some(same) => format!(", and are the same before step {same}"),
        None => String::new(),
    };
    format!(
        "its loss differs; batch and learning rate are the same, but the parameters before it aren't recorded in both runs{since} \
         ({})",
        causes(vec!["other parameters by then"])
    )
}

/// Possible causes, with those that are always possible and, unless the data is known to be the same, with the data.
fn listed(mut causes: Vec<&str>, same_data: Option<bool>) -> String {
    match same_data {
        Some(true) => {}
        Some(false) => causes.insert(0, "the different data"),
        None => causes.push("other data or labels"),
    }
    format!("{}, or rounding", causes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_analyzer::comparison::{BatchDifference, Distance, ValueDifference};

    /// The parameters are recorded before the steps in these ranges [A, B).
    fn parting(common: &[(u64, u64)]) -> Parting {
        Parting {
            steps: 0..12,
            compared: 12,
            batch: None,
            learning_rate: None,
            loss: None,
            parameters: None,
            incomparable: None,
            models: 3,
            common: common.iter().map(|&(start, end)| start..end).collect(),
        }
    }

    fn apart(step: u64) -> Distance {
        Distance {
            step,
            values: 1,
            different: 1,
            norm: None,
            relative: None,
            largest: None,
            tensor: None,
        }
    }

    #[test]
    fn parameters_are_said_to_be_the_same_only_where_they_are_recorded() {
        let loss = |common: &[(u64, u64)]| {
            let mut parting = parting(common);
            parting.loss = Some(ValueDifference {
                step: 9,
                first: Some(0.5),
                second: Some(0.25),
            });
            parted(&parting, 9, None)
        };
        let said = loss(&[(0, 12)]);
        assert!(said.contains("although parameters"), "{said}");
        let said = loss(&[(0, 1), (4, 5), (8, 9)]);
        assert!(said.contains("step 9: its loss differs; batch"), "{said}");
        assert!(said.contains("are the same before step 8"), "{said}");
        let said = loss(&[(10, 12)]);
        assert!(said.ends_with("in both runs (other parameters by then, another loss, other random draws, other data or labels, or rounding)"), "{said}");
    }

    #[test]
    fn an_update_is_named_only_if_the_parameters_before_it_are_recorded() {
        let update = |common: &[(u64, u64)], step| {
            let mut parting = parting(common);
            parting.parameters = Some(apart(step));
            parted(&parting, step, None)
        };
        let said = update(&[(0, 12)], 10);
        assert!(
            said.contains("by the update of step 9: parameters"),
            "{said}"
        );
        let said = update(&[(0, 1), (5, 6), (10, 11)], 10);
        assert!(said.contains("an update of the steps 5 to 9"), "{said}");
        assert!(
            said.contains("the same before step 5 and differ before step 10"),
            "{said}"
        );
        let said = update(&[(10, 11)], 10);
        assert!(
            said.contains("part before step 10, the first whose"),
            "{said}"
        );
        assert!(update(&[(0, 12)], 0).contains("they begin with other parameters"));
    }

    #[test]
    fn another_batch_is_not_the_cause_of_parameters_that_differ_before_it() {
        let mut parting = parting(&[(0, 1), (5, 6), (10, 11)]);
        parting.batch = Some(BatchDifference {
            step: 5,
            examples: [4, 4],
            only_first: 1,
            only_second: 1,
            same_order: false,
        });
        let said = parted(&parting, 5, None);
        assert!(said.ends_with("at step 5: its batch differs"), "{said}");
        parting.parameters = Some(apart(5));
        let said = parted(&parting, 5, None);
        assert!(said.contains("an update of the steps 0 to 4"), "{said}");
        parting.parameters = None;
        parting.batch.as_mut().unwrap().step = 7;
        let said = parted(&parting, 7, None);
        assert!(
            said.contains("same before step 5, and those before step 7"),
            "{said}"
        );
    }

    #[test]
    fn data_that_is_known_to_be_the_same_is_no_cause() {
        for (same_data, said) in [
            (None, "a, b, other data or labels, or rounding"),
            (Some(true), "a, b, or rounding"),
            (Some(false), "the different data, a, b, or rounding"),
        ] {
            assert_eq!(listed(vec!["a", "b"], same_data), said);
        }
    }
}
