//! The steps that are evidence about labels, on trainings that are written by hand.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use hindcast_analyzer::estimators::cleaning::{
    EvidenceWindow, LabelEvidence, WindowReason, confident,
};
use hindcast_analyzer::run::{RecordedEnd, RecordedStep};
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{KernelEngine, MemoryRun, RecordedRun};
use hindcast_format::layout::{DType as Stored, Role, TensorSpec};
use hindcast_format::meta::{BatchWeights, GroupHyper, StepMeta};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::net::Net;
use hindcast_model::objective::Objective;
use hindcast_model::task::{Layer, LossKind, LossSpec, ModelSpec};
use hindcast_model::update::UpdateRule;

const EXAMPLES: u64 = 10;

/// Two logits, 0 and w x + b: class 1 is predicted above a threshold.
fn net() -> Arc<Net> {
    let linear = Layer::Linear { out: 2, bias: true };
    let model = ModelSpec {
        input: vec![1],
        layers: vec![linear],
    };
    Arc::new(Net::new(&model, &LossSpec::new(LossKind::CrossEntropy)).unwrap())
}

/// The numbers 0 to 9. The label of 2 is wrong, those of the others say whether the number is larger than 4.
fn data() -> Box<dyn DataSet> {
    let x: Vec<f64> = (0..EXAMPLES).map(|x| x as f64).collect();
    let y: Vec<u32> = (0..EXAMPLES).map(|x| u32::from(x > 4 || x == 2)).collect();
    let n = EXAMPLES as usize;
    let x = Tensor::from_vec(x, (n, 1), &Device::Cpu).unwrap();
    let y = Tensor::from_vec(y, n, &Device::Cpu).unwrap();
    from_tensors((&x, &y), None, None, &[], None).unwrap()
}

/// A training with one step per epoch, by the threshold of each epoch. The examples of `rare` are used in the first two epochs
/// only.
fn recorded(net: &Net, thresholds: &[f64], rare: &[u64]) -> MemoryRun {
    let specs = net.parameters();
    let values = |threshold: &f64| -> Vec<f64> {
        let of = |name: &str| {
            if name.ends_with("bias") {
                [0.0, -threshold]
            } else {
                [0.0, 1.0]
            }
        };
        specs.iter().flat_map(|d| of(&d.name)).collect()
    };
    let parameters = specs.iter().map(|d| TensorSpec {
        name: d.name.clone(),
        role: Role::Parameter,
        dtype: Stored::F64,
        shape: d.shape.clone(),
        group: 0,
    });
    let steps = (0..).zip(thresholds).map(|(step, threshold)| {
        let indices = (0..EXAMPLES).filter(|i| step < 2 || !rare.contains(i));
        let meta = StepMeta {
            step,
            epoch: step,
            groups: vec![GroupHyper {
                learning_rate: 0.5,
                weight_decay: 0.0,
            }],
            indices: indices.collect(),
            weights: BatchWeights::Mean,
            micro_batches: Vec::new(),
            loss: None,
            clip_norm: None,
            optimizer_step: step,
            trained: vec![true, true],
            scalars: Vec::new(),
            extensions: Vec::new(),
        };
        RecordedStep {
            meta,
            parameters: values(threshold).into(),
            buffers_after: Vec::<f64>::new().into(),
            key: None,
        }
    });
    MemoryRun {
        parameters: parameters.collect(),
        steps: steps.collect(),
        end: Some(RecordedEnd {
            step: thresholds.len() as u64,
            parameters: vec![0.0; 4],
            buffers: Vec::new(),
            optimizer: None,
        }),
        ..MemoryRun::default()
    }
}

/// The window, the number of steps that the search walked, and the estimate by each epoch's own forward passes.
fn window(recorded: &MemoryRun) -> (EvidenceWindow, u64, Vec<usize>) {
    let (net, data) = (net(), data());
    let sgd = UpdateRule::from_toml("kind = \"sgd\"").unwrap();
    let run = RecordedRun::new(recorded, net.clone(), data.as_ref(), sgd, 0).unwrap();
    let mut engine = KernelEngine::new(net, DType::F64).unwrap();
    let mut walked = 0;
    let observer = &mut |stage: Stage| {
        walked = stage.done;
        ControlFlow::Continue(())
    };
    let window = EvidenceWindow::of(&run, &mut engine, observer).unwrap();
    let of_epoch = |step: &RecordedStep| {
        let steps = step.meta.step..step.meta.step + 1;
        let quiet = &mut |_: Stage| ControlFlow::Continue(());
        confident(&LabelEvidence::of(&run, &mut engine, &steps, quiet).unwrap())
    };
    let estimates = recorded.steps.iter().map(of_epoch).collect();
    (window, walked, estimates)
}

/// From epoch to epoch, the predictions of 5, 3, 2, 1, 1, 1, 1, 2 and then 3 examples change.
const MEMORISING: [f64; 12] = [-0.5, 4.5, 1.5, 3.5, 4.5, 5.5, 6.5, 7.5, 5.5, 8.5, 5.5, 8.5];

#[test]
fn the_evidence_is_around_the_epoch_from_which_more_predictions_change_again() {
    let (found, walked, estimates) = window(&recorded(&net(), &MEMORISING, &[]));
    // The mean of four changes is 2.75, 1.75, 1.25, 1, 1.25: its first minimum is at 1, 1, 1, 1, which begins with the fifth epoch.
    assert_eq!((found.reason, found.held), (WindowReason::Memorising, 12));
    assert_eq!(found.turn, 4);
    assert_eq!((found.epochs, found.steps.clone()), ((2, 9), 2..10));
    assert_eq!(walked, 9, "later epochs aren't looked at");
    let mut first_five = estimates[..5].to_vec();
    first_five.sort_unstable();
    assert_eq!(found.wrong, Some(first_five[2]));
    let said = found.to_string();
    assert!(
        said.starts_with("evidence from epochs 2 to 9 of 12 (steps 2 to 10): from epoch 4 on"),
        "{said}"
    );
}

#[test]
fn an_example_that_later_epochs_lack_moves_the_start() {
    let (found, ..) = window(&recorded(&net(), &MEMORISING, &[9]));
    assert_eq!((found.epochs, found.steps), ((1, 9), 1..10));
}

#[test]
fn a_model_that_never_memorises_is_evidence_to_its_end() {
    let thresholds = [-0.5, 2.5, 4.5, 5.5, 4.5, 4.5, 4.5, 4.5];
    let (found, walked, _) = window(&recorded(&net(), &thresholds, &[]));
    assert_eq!(
        (found.reason, found.epochs),
        (WindowReason::Learning, (4, 7))
    );
    assert_eq!((found.steps, walked), (4..8, 8));
}

#[test]
fn few_epochs_are_not_enough_to_see_it() {
    let (found, ..) = window(&recorded(&net(), &MEMORISING[..5], &[]));
    assert_eq!(
        (found.reason, found.epochs),
        (WindowReason::FewEpochs, (2, 4))
    );
    let (found, ..) = window(&recorded(&net(), &MEMORISING[..1], &[]));
    assert_eq!(
        (found.reason, found.epochs),
        (WindowReason::FewEpochs, (0, 0))
    );
    let said = found.to_string();
    assert!(said.starts_with("evidence from epoch 0 of 1 "), "{said}");
}

#[test]
fn a_run_without_its_beginning_is_said_to_be_late() {
    let mut late = recorded(&net(), &MEMORISING, &[]);
    late.steps.drain(..9);
    let (found, walked, _) = window(&late);
    assert_eq!(
        (found.reason, found.steps.clone()),
        (WindowReason::OnlyLate, 9..12)
    );
    assert_eq!((found.wrong, walked), (None, 0));
    let said = found.to_string();
    assert!(said.contains("late training only"), "{said}");
}
