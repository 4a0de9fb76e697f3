//! The `hindcast` command.

/// A step frees and takes tensors of the same sizes over and over. glibc's allocator gives such pages back to the system and
/// faults them in again, which cost more than the arithmetic; mimalloc keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many threads candle's own element-wise operations take. The heavy operations here run in one pool, on all cores; a second
/// one beside it, whose threads spin while they wait, takes those cores away from training and from the recorder.
const CANDLES_OWN_POOL: &str = "CANDLE_NUM_THREADS";

fn main() -> std::process::ExitCode {
    if std::env::var_os(CANDLES_OWN_POOL).is_none() {
        // SAFETY: nothing has run before this, so there is no other thread that could read the environment meanwhile.
        unsafe { std::env::set_var(CANDLES_OWN_POOL, "1") }
    }
    hindcast::main()
}
