//! The `hindcast` command.

/// Every step frees and allocates tensors of the same sizes. glibc's allocator returns their pages to the system and faults
/// them in again, which takes longer than the arithmetic; this one keeps them.
#[global_allocator]
static ALLOCATOR: hindcast::Allocator = hindcast::Allocator;

/// The variable that sets how many threads candle's element-wise operations use. The expensive operations run in a pool of
/// ours on all cores. The waiting threads of a second pool would spin and take those cores from training and the recorder.
const CANDLES_OWN_POOL: &str = "CANDLE_NUM_THREADS";

fn main() -> std::process::ExitCode {
    if std::env::var_os(CANDLES_OWN_POOL).is_none() {
        // SAFETY: nothing has run before this, so no other thread can read the environment at the same time.
        unsafe { std::env::set_var(CANDLES_OWN_POOL, "1") }
    }
    hindcast::main()
}
