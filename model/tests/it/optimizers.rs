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
    train_shaped(rule, &Blocks::new([(5, 0), (3, 0)]))
}

/// The same steps for tensors of other shapes, with 8 values in total.
fn train_shaped(rule: &str, blocks: &Blocks) -> Vec<f64> {
    let rule = UpdateRule::from_toml(rule).unwrap();
    let mut theta = fill(5, 0.1);
    theta.extend(fill(3, 0.9));
    let mut state = rule.initial_state::<f64>(8);
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
        let settings = Settings::uniform(&rule, s as u64, 0.1, blocks.tensors());
        rule.step(blocks, &settings, &mut theta, &gradient, &mut state)
            .unwrap();
    }
    theta
}

/// A step with the counter 0 starts from a state of zero, whatever the state is.
#[test]
fn the_first_step_of_an_optimizer_begins_with_a_state_of_zero() {
    for rule in [
        "kind = 'sgd'\nmomentum = 0.9",
        "kind = 'adam'",
        "kind = 'adamw'",
    ] {
        let rule = UpdateRule::from_toml(rule).unwrap();
        let blocks = Blocks::new([(5, 0), (3, 0)]);
        let mut settings = Settings::uniform(&rule, 0, 0.1, 2);
        settings.trained[1] = false;
        let step = |mut state: Vec<f64>| {
            let mut theta = fill(8, 0.1);
            let gradient = fill(8, 0.4);
            rule.step(&blocks, &settings, &mut theta, &gradient, &mut state)
                .unwrap();
            (theta, state)
        };
        let values = rule.state_values(8);
        let (theta, state) = step(vec![0.0; values]);
        let (other, kept) = step(vec![0.25; values]);
        assert_eq!(theta, other);
        for (i, (zero, quarter)) in state.iter().zip(&kept).enumerate() {
            // The state of a tensor that isn't trained stays.
            let expected = if i % 8 < 5 { *zero } else { 0.25 };
            assert_eq!(*quarter, expected);
        }
    }
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

/// The algorithms in PyTorch's documentation of `RMSprop` and `Adagrad`, and those in the papers of LAMB and Lion, in
/// numpy's float64.
#[test]
fn steps_agree_with_the_documented_algorithms() {
    let cases = [
        (
            "kind = 'rmsprop'\nalpha = 0.9\neps = 1e-4\nweight_decay = 0.05",
            [
                -0.43762594060141585,
                0.2436944389015936,
                -0.04983010808210801,
                -0.4708006593270415,
                0.1373484654123517,
                0.16875652088109913,
                0.6897110492663223,
                0.3780438571914433,
            ],
        ),
        (
            "kind = 'rmsprop'\nalpha = 0.9\neps = 1e-4\nmomentum = 0.8\ncentered = true\nweight_decay = 0.05\nclip_norm = 1.5",
            [
                -2.6088741951075836,
                0.05050416323311457,
                0.5860634985588037,
                -2.834122088366862,
                0.45678195824291323,
                -1.6871541252386288,
                0.9873067919725527,
                2.7161318694312477,
            ],
        ),
        (
            "kind = 'adagrad'\nlr_decay = 0.2\neps = 1e-4\ninitial_accumulator_value = 0.1\nweight_decay = 0.05\nclip_norm = 1.5",
            [
                -0.045386194338212615,
                0.2726600093912739,
                -0.04405806626606927,
                -0.35227563832605363,
                0.20701417503250508,
                0.15422977824796114,
                0.23270825364001413,
                -0.11032546108624386,
            ],
        ),
        (
            "kind = 'adagrad'",
            [
                -0.0501328289842926,
                0.2905317676866625,
                -0.07481734940951179,
                -0.36549942975061206,
                0.17477937463223153,
                0.20188899544267644,
                0.3125002493438244,
                -0.06394452379001972,
            ],
        ),
        (
            "kind = 'lamb'\nbeta1 = 0.8\nbeta2 = 0.9\neps = 1e-4\nweight_decay = 0.05\nclip_norm = 1.5",
            [
                -0.031214807690682928,
                0.3168641000389641,
                -0.10760149170186638,
                -0.3134029054082448,
                0.20813746191711327,
                0.1781049335296637,
                0.20300038791311775,
                -0.16035428803486812,
            ],
        ),
        (
            "kind = 'lion'\nbeta1 = 0.8\nbeta2 = 0.9\nweight_decay = 0.05\nclip_norm = 1.5",
            [
                -0.2659622566537424,
                0.28496865291709106,
                -0.10657230739329251,
                -0.4507338462267798,
                0.16689067595455973,
                0.03448585680776542,
                0.54756857017561,
                0.1258431411655968,
            ],
        ),
    ];
    for (rule, expected) in cases {
        for (got, expected) in train(rule).iter().zip(expected) {
            assert!((got - expected).abs() < 1e-13, "{rule}: {got} {expected}");
        }
    }
}

/// The algorithm in PyTorch's documentation of `Muon` in numpy's float64: a matrix of six values, wide and tall, and a
/// vector of two that AdamW updates.
#[test]
fn muon_agrees_with_the_documented_algorithm() {
    let cases = [
        (
            "kind = 'muon'\nweight_decay = 0.05",
            [2, 3],
            [
                -0.14758092608013518,
                0.23100237490861064,
                -0.07632233750873302,
                -0.2015904511252678,
                0.3301435000888216,
                0.10357369939883154,
                0.26322600809925023,
                0.1948113271636719,
            ],
        ),
        (
            "kind = 'muon'\nmomentum = 0.9\nnesterov = false\nweight_decay = 0.05",
            [3, 2],
            [
                -0.19799498527523446,
                0.2872453877793695,
                -0.14238359294836594,
                -0.5148515129015458,
                0.294385353951205,
                0.08586401398831486,
                0.26322600809925023,
                0.1948113271636719,
            ],
        ),
    ];
    for (rule, shape, expected) in cases {
        let blocks = Blocks::of_shapes([(&shape[..], 0), (&[2][..], 0)]);
        for (got, expected) in train_shaped(rule, &blocks).iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{rule}: {got} {expected}");
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
        "kind = 'rmsprop'\nmomentum = 0.5\ncentered = true",
        "kind = 'adagrad'\nlr_decay = 0.1\ninitial_accumulator_value = 0.1",
        "kind = 'lamb'\nweight_decay = 0.1",
        "kind = 'lion'\nbeta1 = 0.95",
        "kind = 'muon'\nnesterov = false",
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
    assert_eq!(
        names("kind = 'rmsprop'\nmomentum = 0.5\ncentered = true"),
        [
            "mean.a",
            "mean.b",
            "momentum.a",
            "momentum.b",
            "square.a",
            "square.b"
        ]
    );
    assert_eq!(names("kind = 'rmsprop'"), ["square.a", "square.b"]);
    assert_eq!(names("kind = 'adagrad'"), ["sum.a", "sum.b"]);
    assert_eq!(names("kind = 'lion'"), ["momentum.a", "momentum.b"]);
    let adagrad = "kind = 'adagrad'\ninitial_accumulator_value = 0.5";
    let adagrad = UpdateRule::from_toml(adagrad).unwrap();
    assert_eq!(adagrad.initial_state::<f32>(2), [0.5, 0.5]);
    let e = UpdateRule::from_toml("kind = 'adadelta'")
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("`sgd`, `adam`, `adamw`, `rmsprop`, `adagrad`, `lamb`, `lion`, `muon`"),
        "{e}"
    );
    let e = UpdateRule::from_toml("kind = 'rmsprop'\nalpha = 1").unwrap_err();
    assert_eq!(e.to_string(), "alpha = 1: expected a number in [0, 1)");
    let e = UpdateRule::from_toml("kind = 'sgd'\nmomentum = 1.5").unwrap_err();
    assert_eq!(e.to_string(), "momentum = 1.5: expected a number in [0, 1)");
}
