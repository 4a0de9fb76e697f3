//! The update step, compared with PyTorch's numbers and candle's bits.

use candle_core::{Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW, SGD};
use hindcast_model::update::{Blocks, Settings, UpdateError, UpdateRule};

const STEPS: usize = 6;

fn fill(n: usize, k: f64) -> Vec<f64> {
    (0..n).map(|i| 0.3 * (1.7 * i as f64 + k).sin()).collect()
}

/// Six steps on two tensors of 5 and 3 values whose gradients depend on them.
fn train(rule: &str) -> Vec<f64> {
    let rule = UpdateRule::from_toml(rule).unwrap();
    let blocks = Blocks::new([(5, 0), (3, 0)]);
    let mut theta = fill(5, 0.1);
    theta.extend(fill(3, 0.9));
    let mut state = vec![0.0; rule.state_values(8)];
    for s in 0..STEPS {
        let gradient: Vec<f64> = (0..8)
            .map(|i| {
                let slope = match i {
                    0..5 => (i as f64 * 2.3 + s as f64).sin(),
                    _ => ((i - 5) as f64 * 1.1 + s as f64 * 0.7).cos(),
                };
                slope * (1.0 + theta[i])
            })
            .collect();
        let settings = Settings::uniform(&rule, s as u64, 0.1, 2);
        rule.step(&blocks, &settings, &mut theta, &gradient, &mut state)
            .unwrap();
    }
    theta
}

/// PyTorch 2.15 in float64: `torch.optim.{SGD, Adam, AdamW}` after `clip_grad_norm_` if there is a threshold.
#[test]
fn steps_agree_with_pytorch() {
    let cases = [
        (
            "kind = 'sgd'\nweight_decay = 0.05",
            [
                -0.0012496409745252853,
                0.3026663796860628,
                -0.13584845348801958,
                -0.26581382459326064,
                0.17506956608446148,
                0.26514128382261026,
                0.44506813519010346,
                -0.1455209082645961,
            ],
        ),
        (
            "kind = 'sgd'\nmomentum = 0.9\ndampening = 0.3\nweight_decay = 0.05",
            [
                -0.3298374665694293,
                0.22720877169042997,
                0.08200927400623012,
                -0.5892724368072634,
                0.4164439427816877,
                -0.4318556693062803,
                0.5142368736066304,
                0.2933276998191467,
            ],
        ),
        (
            "kind = 'sgd'\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.05\nclip_norm = 1.5",
            [
                -0.35786566007993337,
                0.33993971084521624,
                -0.07188078965881801,
                -0.5404228022844607,
                0.4090938626506319,
                -0.2869084183973316,
                0.7862238965850011,
                0.3130776798387603,
            ],
        ),
        (
            "kind = 'adam'\nbeta1 = 0.8\nbeta2 = 0.9\neps = 1e-4\nweight_decay = 0.05",
            [
                -0.312068714106455,
                0.26126574223714494,
                0.04059203173024574,
                -0.5898920331682236,
                0.2746991966451949,
                -0.03953023545966078,
                0.2980079922859661,
                0.17016849511329432,
            ],
        ),
        (
            "kind = 'adamw'\nbeta1 = 0.8\nbeta2 = 0.9\neps = 1e-4\nweight_decay = 0.05\nclip_norm = 1.5",
            [
                -0.21335493757557872,
                0.2602736566707496,
                0.0430889447808915,
                -0.587395006152669,
                0.2716833413097022,
                -0.040262219369590055,
                0.2980738707213133,
                0.1716699113011559,
            ],
        ),
    ];
    for (rule, expected) in cases {
        for (got, expected) in train(rule).iter().zip(expected) {
            assert!((got - expected).abs() < 1e-13, "{rule}: {got} {expected}");
        }
    }
}

/// Compares the steps of candle's optimizer in f32 with ours from the same gradients.
fn against_candle(mut optimizer: impl Optimizer, variable: &Var, rule: &UpdateRule, eta: f64) {
    let mut theta: Vec<f32> = variable.to_vec1().unwrap();
    let mut state = vec![0f32; rule.state_values(theta.len())];
    let blocks = Blocks::new([(theta.len(), 0)]);
    let target = Tensor::new(&fill(50, 2.0)[..], &Device::Cpu).unwrap();
    let target = target.to_dtype(candle_core::DType::F32).unwrap();
    for step in 0..20 {
        let loss = (variable.as_tensor() - &target).unwrap();
        let loss = loss.sqr().unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let gradient: Vec<f32> = grads.get(variable).unwrap().to_vec1().unwrap();
        optimizer.step(&grads).unwrap();
        let settings = Settings::uniform(rule, step, eta, 1);
        rule.step(&blocks, &settings, &mut theta, &gradient, &mut state)
            .unwrap();
        let candle: Vec<f32> = variable.to_vec1().unwrap();
        assert_eq!(candle, theta, "step {step}");
    }
}

#[test]
fn steps_have_the_bits_of_candles_optimizers() {
    let start: Vec<f32> = fill(50, 0.3).iter().map(|&x| x as f32).collect();
    let variable = Var::new(start.as_slice(), &Device::Cpu).unwrap();
    let sgd = SGD::new(vec![variable.clone()], 0.07).unwrap();
    against_candle(sgd, &variable, &UpdateRule::sgd(), 0.07);
    let variable = Var::new(start.as_slice(), &Device::Cpu).unwrap();
    let params = ParamsAdamW {
        lr: 0.03,
        ..Default::default()
    };
    let adamw = AdamW::new(vec![variable.clone()], params).unwrap();
    against_candle(adamw, &variable, &UpdateRule::adamw(), 0.03);
}

#[test]
fn vectors_that_do_not_fit_change_nothing() {
    let rule = UpdateRule::adamw();
    let blocks = Blocks::new([(2, 0), (1, 1)]);
    let mut settings = Settings::uniform(&rule, 0, 0.1, 2);
    let mut theta = [1.0, 2.0, 3.0];
    let mut step = |settings: &Settings, g: &[f64], state: &mut [f64]| {
        let result = rule.step(&blocks, settings, &mut theta, g, state);
        assert_eq!(theta, [1.0, 2.0, 3.0]);
        result.unwrap_err()
    };
    assert!(matches!(
        step(&settings, &[0.0; 2], &mut [0.0; 6]),
        UpdateError::Length {
            what: "the gradient",
            expected: 3,
            got: 2
        }
    ));
    assert!(matches!(
        step(&settings, &[0.0; 3], &mut [0.0; 3]),
        UpdateError::Length {
            expected: 6,
            got: 3,
            ..
        }
    ));
    assert_eq!(
        step(&settings, &[0.0; 3], &mut [0.0; 6]).to_string(),
        "parameter tensor 1 is in group 1, but the step has learning rates for 1 group(s)"
    );
    settings.trained.pop();
    assert!(matches!(
        step(&settings, &[0.0; 3], &mut [0.0; 6]),
        UpdateError::Flags {
            expected: 2,
            got: 1
        }
    ));
}

#[test]
fn a_rule_round_trips_through_toml_and_names_its_state() {
    for text in [
        "kind = 'sgd'",
        "kind = 'sgd'\nmomentum = 0.9\nclip_norm = 2",
        "kind = 'adam'",
        "kind = 'adamw'",
    ] {
        let rule = UpdateRule::from_toml(text).unwrap();
        let again = UpdateRule::from_toml(&rule.to_toml().unwrap()).unwrap();
        assert_eq!(rule, again);
    }
    let defs = ["a", "b"].map(|name| hindcast_model::objective::TensorDef {
        name: name.into(),
        shape: vec![2, 3],
    });
    let names = |rule: &str| -> Vec<String> {
        let rule = UpdateRule::from_toml(rule).unwrap();
        rule.state_tensors(&defs)
            .into_iter()
            .map(|t| t.name)
            .collect()
    };
    assert!(names("kind = 'sgd'").is_empty());
    assert_eq!(
        names("kind = 'sgd'\nmomentum = 0.5"),
        ["momentum.a", "momentum.b"]
    );
    assert_eq!(
        names("kind = 'adamw'"),
        ["moment1.a", "moment1.b", "moment2.a", "moment2.b"]
    );
    let e = UpdateRule::from_toml("kind = 'sgd'\nmomentum = 1.5").unwrap_err();
    assert_eq!(e.to_string(), "momentum = 1.5: expected a number in [0, 1)");
}
