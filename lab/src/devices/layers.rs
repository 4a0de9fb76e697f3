//! First and second derivatives of each layer, against finite differences.

use candle_core::{D, DType, Module as _, Result, Tensor};
use hindcast_model::ops::{self, DerivativeReport, check_derivatives, second_order};
use hindcast_model::own;

use super::report::{Line, Lines};
use super::setting::Setting;

/// Largest relative error. That of the differences is about 1e-9.
const LIMIT: f64 = 1e-7;

pub(super) fn run(setting: &Setting, lines: &Lines) -> anyhow::Result<()> {
    let mut rows = ops::derivative_check_on(&setting.device)?;
    rows.extend(second_order::with_big_stack(|| own_layers(setting))?);
    for row in rows {
        let second = format!("{}, second derivative", row.name);
        lines.push(Line::error(row.name, row.first, LIMIT));
        lines.push(Line::error(second, row.second, LIMIT));
    }
    Ok(())
}

/// The layers of models of the user's own that [`ops::derivative_check_on`] doesn't have.
fn own_layers(setting: &Setting) -> Result<Vec<DerivativeReport>> {
    let draw = |seed: u64, dims: &[usize]| setting.normal(seed, dims, DType::F64);
    let (x, weight, bias) = (draw(1, &[2, 3, 4])?, draw(2, &[4])?, draw(3, &[4])?);
    let angles = draw(4, &[3, 2])?;
    let (cos, sin) = (angles.cos()?, angles.sin()?);
    let heads = draw(5, &[2, 2, 3, 4])?;
    let three = [x.clone(), weight, bias];
    Ok(vec![
        check_derivatives("layer norm", &three, |t| {
            own::LayerNorm::new(t[1].clone(), t[2].clone(), 1e-5).forward(&t[0])
        })?,
        check_derivatives("rms norm", &three[..2], |t| {
            own::RmsNorm::new(t[1].clone(), 1e-6).forward(&t[0])
        })?,
        check_derivatives("softmax over the last dimension", &three[..1], |t| {
            own::ops::softmax_last_dim(&t[0])
        })?,
        check_derivatives("rotary embedding", std::slice::from_ref(&heads), |t| {
            own::rotary_emb::rope(&t[0], &cos, &sin)
        })?,
        check_derivatives("rotary embedding of pairs", &[heads], |t| {
            own::rotary_emb::rope_i(&t[0], &cos, &sin)
        })?,
        check_derivatives("product of matrices, sum, mean", &three[..1], |t| {
            let product = t[0].matmul(&t[0].t()?)?;
            product.mean(D::Minus1)?.sum_keepdim(0)
        })?,
    ])
}

/// A second derivative of a function of float tensors: the gradient of ⟨∇ Σ f², v⟩ with respect to each input, flat.
pub(super) fn second_derivative(
    inputs: &[Tensor],
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars = inputs
        .iter()
        .map(candle_core::Var::from_tensor)
        .collect::<Result<Vec<_>>>()?;
    let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = f(&leaves)?.sqr()?.sum_all()?.backward()?;
    let mut along: Option<Tensor> = None;
    for x in &leaves {
        if let Some(gradient) = grads.get(x) {
            let part = gradient.mul(&x.detach().cos()?)?.sum_all()?;
            along = Some(match along {
                Some(sum) => sum.add(&part)?,
                None => part,
            });
        }
    }
    match along {
        None => leaves.iter().map(Tensor::zeros_like).collect(),
        Some(along) => leaves
            .iter()
            .map(|x| Ok(second_order::gradient(&along, x)?.detach()))
            .collect(),
    }
}
