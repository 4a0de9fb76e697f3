//! The error function of a block of values, with the bits of candle's `erf`.
//!
//! candle calls `libm::erff` (FreeBSD's msun, after Sun's fdlibm). It looks at the size of each value to choose one of five formulas,
//! so it computes one value at a time. Here, a processor's vector instructions compute a formula for several values at once. A group
//! with small values only needs one formula. In another group, the formulas of all sizes are computed for every value, and each value
//! takes the result that belongs to its size. The operations of a formula are libm's, in their order, so the results have libm's bits.

use crate::ops::element::Element;
use crate::wide::{Loop, wide};

/// Number of values whose intermediate results are on the stack.
pub(super) const BLOCK: usize = 128;

/// A float type with an error function.
pub(super) trait Erf: Element {
    /// erf of each value.
    fn erf(x: &[Self; BLOCK]) -> [Self; BLOCK];
}

impl Erf for f64 {
    fn erf(x: &[f64; BLOCK]) -> [f64; BLOCK] {
        x.map(libm::erf)
    }
}

impl Erf for f32 {
    fn erf(x: &[f32; BLOCK]) -> [f32; BLOCK] {
        let mut out = [0.0; BLOCK];
        wide::<Blocks, _>((x, &mut out));
        out
    }
}

/// Number of values whose formulas are chosen together.
const GROUP: usize = 32;
/// From here on, the formulas contain an exponential.
const NEAR: f32 = 0.843_75;
/// libm's 1/0.35.
const INNER: f32 = f32::from_bits(0x4036_db6d);

struct Blocks;

impl Loop<(&[f32; BLOCK], &mut [f32; BLOCK])> for Blocks {
    #[inline(always)]
    fn run((x, out): (&[f32; BLOCK], &mut [f32; BLOCK])) {
        let (x, _) = x.as_chunks::<GROUP>();
        let (out, _) = out.as_chunks_mut::<GROUP>();
        for (x, out) in x.iter().zip(out) {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = near(x);
            }
            if x.iter().any(|x| x.abs() >= NEAR || x.is_nan()) {
                for (out, &x) in out.iter_mut().zip(x) {
                    *out = if x.abs() < NEAR { *out } else { far(x) };
                }
            }
        }
    }
}

/// c[0] + s (c[1] + s (...)).
#[inline(always)]
fn polynomial<const N: usize>(s: f32, c: [f32; N]) -> f32 {
    let mut sum = c[N - 1];
    let mut k = N - 1;
    while k > 0 {
        k -= 1;
        sum = c[k] + s * sum;
    }
    sum
}

/// erf where |x| < 0.84375.
#[inline(always)]
fn near(x: f32) -> f32 {
    const TINY: f32 = 1.0 / (1u32 << 28) as f32;
    let z = x * x;
    let r = polynomial(z, PP);
    let s = polynomial(z, QQ);
    let y = r / s;
    if x.abs() < TINY {
        0.125 * (8.0 * x + EFX8 * x)
    } else {
        x + x * y
    }
}

/// erf where |x| ≥ 0.84375, or x is NaN.
#[inline(always)]
fn far(x: f32) -> f32 {
    let size = x.abs();
    let s = size - 1.0;
    let middle = 1.0 - (1.0 - ERX - polynomial(s, PA) / polynomial(s, QA));
    let s = 1.0 / (size * size);
    let inner = size < INNER;
    let r = if inner {
        polynomial(s, RA)
    } else {
        polynomial(s, RB)
    };
    let big = if inner {
        polynomial(s, SA)
    } else {
        polynomial(s, SB)
    };
    let z = f32::from_bits(size.to_bits() & 0xffff_e000);
    let tail = exp_far(-z * z - 0.5625) * exp_near((z - size) * (z + size) + r / big) / size;
    let outer = 1.0 - tail;
    let value = if size < 1.25 { middle } else { outer };
    // 1 − 2^−120 is 1.
    let value = if size < 6.0 { value } else { 1.0 };
    if size.is_nan() { x } else { value.copysign(x) }
}

/// libm's `expf` from −37 to −2.
#[inline(always)]
fn exp_far(x: f32) -> f32 {
    // Outside of the range the result isn't used, but the exponent must exist.
    let x = x.clamp(-40.0, -2.0);
    let k = INV_LN2 * x - 0.5;
    let k = k as i32;
    let kf = k as f32;
    let hi = x - kf * LN2_HI;
    let lo = kf * LN2_LO;
    reduced(hi - lo, hi, lo) * f32::from_bits(((127 + k) as u32) << 23)
}

/// libm's `expf` where 2^−14 < |x| < ln 2 / 2.
#[inline(always)]
fn exp_near(x: f32) -> f32 {
    reduced(x, x, 0.0)
}

#[inline(always)]
fn reduced(x: f32, hi: f32, lo: f32) -> f32 {
    let xx = x * x;
    let c = x - xx * (P1 + xx * P2);
    1.0 + (x * c / (2.0 - c) - lo + hi)
}

const LN2_HI: f32 = 6.931_457_5e-1;
const LN2_LO: f32 = 1.428_606_8e-6;
const INV_LN2: f32 = std::f32::consts::LOG2_E;
const P1: f32 = 1.666_662_5e-1;
const P2: f32 = -2.766_733_3e-3;

/// The coefficients of libm's `erff`.
const ERX: f32 = 8.450_629e-1;
const EFX8: f32 = 1.027_033_3e0;
const PP: [f32; 5] = [
    1.283_791_7e-1,
    -3.250_421e-1,
    -2.848_175e-2,
    -5.770_270_2e-3,
    -2.376_301_7e-5,
];
const QQ: [f32; 6] = [
    1.0,
    3.979_172e-1,
    6.502_225e-2,
    5.081_306e-3,
    1.324_947_4e-4,
    -3.960_228_2e-6,
];
const PA: [f32; 7] = [
    -2.362_118_6e-3,
    4.148_561e-1,
    -3.722_078_8e-1,
    3.183_466_2e-1,
    -1.108_946_95e-1,
    3.547_830_5e-2,
    -2.166_375_5e-3,
];
const QA: [f32; 7] = [
    1.0,
    1.064_208_8e-1,
    5.403_979_4e-1,
    7.182_865_6e-2,
    1.261_712_2e-1,
    1.363_708_4e-2,
    1.198_45e-2,
];
const RA: [f32; 8] = [
    -9.864_944e-3,
    -6.938_585_6e-1,
    -1.055_862_6e1,
    -6.237_533e1,
    -1.623_966_7e2,
    -1.846_050_9e2,
    -8.128_744e1,
    -9.814_329e0,
];
const SA: [f32; 9] = [
    1.0,
    1.965_127_2e1,
    1.376_577_6e2,
    4.345_659e2,
    6.453_872_7e2,
    4.290_081_5e2,
    1.086_35e2,
    6.570_249_6e0,
    -6.042_441_4e-2,
];
const RB: [f32; 7] = [
    -9.864_943e-3,
    -7.992_832_7e-1,
    -1.775_795_6e1,
    -1.606_363_8e2,
    -6.375_664_7e2,
    -1.025_095_1e3,
    -4.835_192e2,
];
const SB: [f32; 8] = [
    1.0,
    3.033_806e1,
    3.257_925e2,
    1.536_729_6e3,
    3.199_858_2e3,
    2.553_050_3e3,
    4.745_285_3e2,
    -2.244_095_2e1,
];
