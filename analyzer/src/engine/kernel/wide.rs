//! Loops compiled for the widest vectors of the processor at hand.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

/// A loop over `A`. `run` has to be `#[inline(always)]`, and so has whatever it calls: only what is inlined is compiled for
/// what the processor has. (A closure or a function passed as a value is called, not inlined.)
pub(super) trait Loop<A> {
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

/// Runs a loop with what the processor has, found out at run time. The order of operations, and so the bits of a result, are
/// the same everywhere.
#[inline(always)]
pub(super) fn wide<L: Loop<A>, A>(arguments: A) {
    Arch::new().dispatch(Call::<L, A>(arguments, PhantomData));
}
