//! A model of token sequences with padding: it is checked, replayed bit for bit, and its scores equal differences of repeated
//! training.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, VarMap, embedding, linear};
use hindcast_analyzer::check::{CheckOptions, check_run, signature};
use hindcast_analyzer::run::RecordedEnd;
use hindcast_analyzer::sweep::{
    SessionOptions, SweepCheckpoint, SweepIdentity, begin, loss_terms, resume,
};
use hindcast_analyzer::{
    AnalysisError, AutodiffEngine, OwnModelParts, Query, RecordedRun, ReplayCheckOptions, Session,
    SweepOptions, SweepState, replay_check, sweep,
};
use hindcast_format::{MemStorage, Trace};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{self, OwnModel, RmsNorm};
use hindcast_recorder::Builder;

use super::training::{difference, error_of_scores, trace, train_by_sgd};
use super::{initialise, state};
use crate::numbers::relative_error;

const VOCABULARY: usize = 7;
const WIDTH: usize = 4;
const SEQUENCES: u64 = 8;
const TOKENS: usize = 5;
const PADDING: i64 = -100;
const STEPS: u64 = 6;

/// Embedding, causal attention, RMS norm, and logits of the next token.
struct Net {
    embed: Embedding,
    qkv: Linear,
    norm: RmsNorm,
    out: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            embed: embedding(VOCABULARY, WIDTH, vb.pp("embed"))?,
            qkv: linear(WIDTH, 3 * WIDTH, vb.pp("qkv"))?,
            norm: own::rms_norm(WIDTH, 1e-6, vb.pp("norm"))?,
            out: linear(WIDTH, VOCABULARY, vb.pp("out"))?,
        })
    }

    fn forward(&self, ids: &Tensor, _: bool) -> Result<Tensor> {
        let x = self.embed.forward(ids)?;
        let qkv = self.qkv.forward(&x)?.chunk(3, 2)?;
        let scores = qkv[0].contiguous()?.matmul(&qkv[1].t()?.contiguous()?)?;
        let mask = Tensor::triu2(TOKENS, DType::F64, ids.device())?.broadcast_sub(&Tensor::eye(
            TOKENS,
            DType::F64,
            ids.device(),
        )?)?;
        let scores = scores.broadcast_sub(&(mask * 1e4)?.to_dtype(scores.dtype())?)?;
        let mixed = own::ops::softmax_last_dim(&scores)?.matmul(&qkv[2].contiguous()?)?;
        self.out.forward(&self.norm.forward(&(x + mixed)?)?)
    }
}

fn loss(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    ops::sequence_cross_entropy(logits, targets, Some(PADDING))
}

fn terms(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    ops::token_cross_entropy(logits, targets, Some(PADDING))
}

fn objective() -> Arc<OwnModel> {
    Arc::new(OwnModel::new(Net::new, Net::forward, loss).unwrap())
}

/// The same model, which says its loss per token.
fn objective_by_token() -> Arc<OwnModel> {
    Arc::new(OwnModel::new(Net::new, Net::forward, terms).unwrap())
}

/// Whose loss is scaled in a training, and by how much.
#[derive(Clone, Copy)]
enum Scaled {
    Example(u64, f64),
    Token(u64, usize, f64),
}

/// Sequences of different lengths, padded with 0; the targets are the next tokens.
fn data() -> Box<dyn DataSet> {
    let pair = |seed: usize, n: usize| {
        let mut inputs = Vec::new();
        let mut targets = Vec::new();
        for row in 0..n {
            let token = |at: usize| ((seed + row * 5 + at * at * (row + 2)) % VOCABULARY) as i64;
            let length = 2 + (row + seed) % (TOKENS - 1);
            for at in 0..TOKENS {
                inputs.push(if at < length { token(at) } else { 0 });
                targets.push(if at < length { token(at + 1) } else { PADDING });
            }
        }
        let tensor = |ids| Tensor::from_vec(ids, (n, TOKENS), &Device::Cpu).unwrap();
        (tensor(inputs), tensor(targets))
    };
    let (train, validation) = (pair(1, SEQUENCES as usize), pair(3, 5));
    let validation = Some((&validation.0, &validation.1));
    from_tensors((&train.0, &train.1), validation, None, &[], None).unwrap()
}

fn train(dtype: DType, changed: Option<Scaled>, record: Option<&Arc<MemStorage>>) -> RecordedEnd {
    let data = data();
    let variables = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(&variables, dtype, &Device::Cpu)).unwrap();
    initialise(&variables, 0.8);
    let options = |builder: Builder| builder.fingerprint(data.fingerprint());
    train_by_sgd(&variables, (0.3, STEPS), record, options, |step| {
        let indices: Vec<u64> = (0..3).map(|k| (step * 3 + k * 2) % SEQUENCES).collect();
        let batch = data
            .batch(Split::Train, &indices, None, dtype, &Device::Cpu)
            .unwrap();
        let logits = net.forward(&batch.inputs, true).unwrap();
        let n = indices.len() as f64;
        let loss = match changed {
            None => loss(&logits, &batch.targets).unwrap().mean_all().unwrap(),
            Some(scaled) => {
                let factor = |i: u64, at: usize| match scaled {
                    Scaled::Example(example, factor) if i == example => factor,
                    Scaled::Token(example, token, factor) if (i, at) == (example, token) => factor,
                    _ => 1.0,
                };
                let weights = indices
                    .iter()
                    .flat_map(|&i| (0..TOKENS).map(move |at| factor(i, at) / n));
                let weights = Tensor::from_iter(weights, &Device::Cpu).unwrap();
                let weights = weights.reshape((indices.len(), TOKENS)).unwrap();
                let terms = terms(&logits, &batch.targets).unwrap();
                terms.mul(&weights).unwrap().sum_all().unwrap()
            }
        };
        (0, indices, loss)
    });
    state(&variables, objective().as_ref())
}

#[test]
fn a_run_of_sequences_is_checked_and_replayed() {
    for (dtype, objective, terms) in [
        (DType::F32, objective(), None),
        (DType::F64, objective(), None),
        (DType::F32, objective_by_token(), Some(TOKENS)),
        (DType::F64, objective_by_token(), Some(TOKENS)),
    ] {
        let storage = Arc::new(MemStorage::new());
        train(dtype, None, Some(&storage));
        let trace = trace(&storage);
        let data = data();
        let run = RecordedRun::from_trace(&trace, objective, data.as_ref(), None).unwrap();
        let report = check_run(&run, &CheckOptions::default(), &mut |_| {}).unwrap();
        assert!(report.passed(), "{report}");
        // A forgotten mean looks the same, so the result names it.
        assert_eq!(report.terms, terms);
        let text = "; the loss of an example is the sum of 5 terms";
        assert_eq!(report.to_string().ends_with(text), terms.is_some());
        let options = ReplayCheckOptions {
            samples: 0,
            ..ReplayCheckOptions::new(&run)
        };
        let report = replay_check(&run, &options, &mut |_, _| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(report.steps.len() as u64, STEPS);
        assert!(report.bit_identical(), "{dtype:?}: {:?}", report.worst());
    }
}

#[test]
fn a_changed_model_or_run_has_another_signature() {
    let signed = |storage: &Arc<MemStorage>, model: OwnModel| {
        let trace = Trace::open_storage(Arc::clone(storage) as _).unwrap();
        let parts = OwnModelParts {
            objective: Arc::new(model),
            data: data(),
            rule: None,
            check: true,
        };
        let run = RecordedRun::open_own(trace, Path::new("a run in memory"), parts).unwrap();
        signature(&run, &CheckOptions::default()).unwrap().unwrap()
    };
    let recorded = |dtype| {
        let storage = Arc::new(MemStorage::new());
        train(dtype, None, Some(&storage));
        storage
    };
    let storage = recorded(DType::F32);
    let model = || OwnModel::new(Net::new, Net::forward, loss).unwrap();
    let first = signed(&storage, model());
    assert_eq!(first, signed(&storage, model()));
    assert_ne!(first, signed(&recorded(DType::F64), model()), "another run");
    // The same values with another derivative, and the same derivatives with another constant.
    let cut = |logits: &Tensor, targets: &Tensor| {
        let half = (logits * 0.5)?;
        loss(&(&half + half.detach())?, targets)
    };
    let shifted = |logits: &Tensor, targets: &Tensor| loss(logits, targets)? + 1.0;
    for (name, loss) in [("detach", cut as Loss), ("shifted", shifted)] {
        let other = OwnModel::new(Net::new, Net::forward, loss).unwrap();
        assert_ne!(first, signed(&storage, other), "{name}");
    }
}

#[test]
fn a_term_that_only_training_adds_changes_the_signature() {
    let storage = Arc::new(MemStorage::new());
    train(DType::F32, None, Some(&storage));
    let signed = |forward: fn(&Net, &Tensor, bool) -> Result<Tensor>| {
        let sum = |losses: &Tensor, _: &Tensor| losses.sum(1);
        let trace = trace(&storage);
        let parts = OwnModelParts {
            objective: Arc::new(OwnModel::new(Net::new, forward, sum).unwrap()),
            data: data(),
            rule: None,
            check: true,
        };
        let run = RecordedRun::open_own(trace, Path::new("a run in memory"), parts).unwrap();
        signature(&run, &CheckOptions::default()).unwrap().unwrap()
    };
    let plain = signed(|net, ids, train| net.forward(ids, train)?.sqr()?.flatten_from(1));
    let cut = signed(|net, ids, train| {
        let losses = net.forward(ids, train)?.sqr()?.flatten_from(1)?;
        // No derivative shows this term, and evaluation doesn't have it.
        if train {
            &losses + losses.detach()
        } else {
            Ok(losses)
        }
    });
    assert_ne!(plain, cut);
}

type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

#[test]
fn scores_of_sequences_equal_the_differences_of_repeated_training() {
    let storage = Arc::new(MemStorage::new());
    train(DType::F64, None, Some(&storage));
    let trace = trace(&storage);
    let data = data();
    let run = RecordedRun::from_trace(&trace, objective(), data.as_ref(), None).unwrap();
    let query: Query = "validation".parse().unwrap();
    let trained = |example, factor| train(DType::F64, Some(Scaled::Example(example, factor)), None);
    let error = error_of_scores(&run, objective(), &query, (STEPS, SEQUENCES), &trained);
    println!("token sequences with padding: {error:.1e}");
    assert!(error < 1e-6, "{error:e}");
}

/// The scores of the window's sequences and tokens, in one pass or saved and resumed after each step.
fn swept(trace: &Trace, window: std::ops::Range<u64>, resumed: bool) -> SweepState {
    let data = data();
    let run = RecordedRun::from_trace(trace, objective_by_token(), data.as_ref(), None).unwrap();
    let mut engine = AutodiffEngine::new(objective_by_token(), DType::F64, &Device::Cpu).unwrap();
    let queries: Vec<Query> = ["validation", "train:2"]
        .map(|q| q.parse().unwrap())
        .to_vec();
    let gradients: Vec<_> = queries
        .iter()
        .map(|q| q.gradient(trace, &mut engine, data.as_ref()).unwrap())
        .collect();
    let options = SweepOptions {
        per_term: true,
        ..SweepOptions::new(window)
    };
    let mut state = begin(&run, &engine, &gradients, &options).unwrap();
    let identity = SweepIdentity::of(&run, &queries, &options, "", "").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep");
    loop {
        let step = resume(&run, &mut engine, state, false, &mut |state| {
            if resumed {
                SweepCheckpoint::write(&file, &identity, state).unwrap();
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        match step {
            Ok(state) => return state,
            Err(AnalysisError::Cancelled { .. }) => {
                let saved = SweepCheckpoint::read(&file).unwrap();
                let mut other = identity.clone();
                other.per_term = false;
                let refused = saved.is_of(&file, &other).unwrap_err().to_string();
                assert!(refused.contains("scores per token"), "{refused}");
                state = saved.state_of(&file, &identity).unwrap();
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn scores_of_tokens_equal_the_differences_of_repeated_training() {
    let storage = Arc::new(MemStorage::new());
    train(DType::F64, None, Some(&storage));
    let trace = trace(&storage);
    let data = data();
    let run = RecordedRun::from_trace(&trace, objective_by_token(), data.as_ref(), None).unwrap();
    assert_eq!(loss_terms(&run).unwrap(), Some(TOKENS));
    let state = swept(&trace, 0..STEPS, false);
    let query: Query = "validation".parse().unwrap();
    let (mut scores, mut differences) = (Vec::new(), Vec::new());
    for (example, of_tokens) in (0..).zip(&state.queries[0].terms) {
        let sum: f64 = of_tokens.iter().sum();
        let whole = state.queries[0].influence[example as usize];
        assert!((sum - whole).abs() <= 1e-15 * of_tokens.iter().map(|x| x.abs()).sum::<f64>());
        for (token, &score) in of_tokens.iter().enumerate() {
            let trained = |factor| {
                train(
                    DType::F64,
                    Some(Scaled::Token(example, token, factor)),
                    None,
                )
            };
            scores.push(score);
            differences.push(difference(&run, &query, &trained));
        }
    }
    assert_eq!(scores.len(), SEQUENCES as usize * TOKENS);
    let padding = scores.iter().filter(|&&x| x == 0.0).count();
    assert!(padding > 0 && padding < scores.len() / 2, "{padding}");
    let error = relative_error(&scores, &differences);
    println!("tokens of sequences with padding: {error:.1e}");
    assert!(error < 1e-6, "{error:e}");
    // The sequences' scores are those of the model that says whole losses only, up to rounding.
    let mut engine = AutodiffEngine::new(objective(), DType::F64, &Device::Cpu).unwrap();
    let plain = RecordedRun::from_trace(&trace, objective(), data.as_ref(), None).unwrap();
    let gradient = query.gradient(&trace, &mut engine, data.as_ref()).unwrap();
    let options = SweepOptions::new(0..STEPS);
    let whole = sweep(&plain, &mut engine, &[gradient], &options, &mut |_| {
        ControlFlow::Continue(())
    });
    let error = relative_error(
        &state.queries[0].influence,
        &whole.unwrap().queries[0].influence,
    );
    assert!(error < 1e-13, "{error:e}");
}

#[test]
fn a_sweep_with_scores_of_tokens_resumes_with_the_same_bits() {
    let storage = Arc::new(MemStorage::new());
    train(DType::F64, None, Some(&storage));
    let trace = trace(&storage);
    // Some sequences are in no batch of the window, so they have no tokens.
    let whole = swept(&trace, 4..STEPS, false);
    assert!(whole.queries[0].terms.iter().any(Vec::is_empty));
    assert_eq!(swept(&trace, 4..STEPS, true), whole);
}

#[test]
fn a_model_that_says_whole_losses_only_has_no_scores_of_tokens() {
    let storage = Arc::new(MemStorage::new());
    train(DType::F64, None, Some(&storage));
    let trace = trace(&storage);
    let data = data();
    let run = RecordedRun::from_trace(&trace, objective(), data.as_ref(), None).unwrap();
    assert_eq!(loss_terms(&run).unwrap(), None);
    let engine = AutodiffEngine::new(objective(), DType::F64, &Device::Cpu).unwrap();
    let queries = ["validation".parse().unwrap()];
    let options = SessionOptions::new(SweepOptions {
        per_term: true,
        ..SweepOptions::new(0..STEPS)
    });
    let refused = Session::new(&run, &engine, &queries, options)
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("token_cross_entropy"),
        "{refused}"
    );
}
