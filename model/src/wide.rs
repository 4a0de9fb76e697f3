//! Loops compiled for the widest vectors of the running processor.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

/// A loop over `A`. `run` and all functions that it calls must be `#[inline(always)]`: only inlined code is compiled
/// for the processor's features. (A closure or a function passed as a value is called, not inlined.)
pub trait Loop<A> {
    /// Runs the loop.
    fn run(arguments: A);
}

struct Call<L, A>(A, PhantomData<L>);

impl<A, L: Loop<A>> WithSimd for Call<L, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        L::run(self.0);
    }
}

/// Runs a loop with the processor's features, detected at run time. The order of operations, and so the bits of a
/// result, is the same on all processors.
#[inline(always)]
pub fn wide<L: Loop<A>, A>(arguments: A) {
    Arch::new().dispatch(Call::<L, A>(arguments, PhantomData));
}
