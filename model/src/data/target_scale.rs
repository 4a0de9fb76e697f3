//! Standardisation of the targets of a regression.

/// Mean and standard deviation of each target over the training examples. Training sees `(y − mean) / sd`.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetScale {
    /// Mean of each target, in the unit of the labels.
    pub mean: Vec<f64>,
    /// Standard deviation of each target, in the unit of the labels. It is 1 for a target that is constant.
    pub sd: Vec<f64>,
}

impl TargetScale {
    /// Scales the targets of one or more examples for training. They are in rows of one value per target.
    pub(super) fn scale(&self, values: &mut [f64]) {
        for row in values.chunks_mut(self.mean.len().max(1)) {
            for ((y, mean), sd) in row.iter_mut().zip(&self.mean).zip(&self.sd) {
                *y = (*y - mean) / sd;
            }
        }
    }

    /// Targets or outputs of a model, one per target, in the unit of the labels.
    pub fn in_units(&self, scaled: &[f64]) -> Vec<f64> {
        let scales = self.mean.iter().zip(&self.sd);
        let values = scaled.iter().zip(scales);
        values.map(|(z, (mean, sd))| mean + sd * z).collect()
    }

    /// The factor by which a squared error of the standardised targets is one in the squared unit of the labels. `None` if the
    /// targets have several factors.
    pub fn squared_unit(&self) -> Option<f64> {
        let first = self.sd.first()?;
        let same = self.sd.iter().all(|sd| sd == first);
        same.then_some(first * first)
    }

    /// What losses mean, for users: a sentence without its end.
    pub fn of_losses(&self) -> String {
        let text = "losses and influences are those of the standardised target";
        match self.squared_unit() {
            Some(factor) => {
                format!("{text}; times {factor:.4} they are in the squared unit of the labels")
            }
            None => text.to_owned(),
        }
    }

    /// The scaling for users, in a few words.
    pub fn describe(&self) -> String {
        let list = |values: &[f64]| {
            let values: Vec<String> = values.iter().map(|x| format!("{x:.4}")).collect();
            values.join(", ")
        };
        format!(
            "standardised: mean {}, standard deviation {} over the train split",
            list(&self.mean),
            list(&self.sd)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_targets_come_back_in_their_units() {
        let scale = TargetScale {
            mean: vec![10.0, -1.0],
            sd: vec![2.0, 0.5],
        };
        let mut values = [14.0, -1.0, 9.0, 0.0];
        scale.scale(&mut values);
        assert_eq!(values, [2.0, 0.0, -0.5, 2.0]);
        assert_eq!(scale.in_units(&values[2..]), [9.0, 0.0]);
        assert_eq!(scale.squared_unit(), None);
        let one = TargetScale {
            mean: vec![3.0],
            sd: vec![4.0],
        };
        assert!(one.of_losses().contains("times 16.0000"));
    }
}
