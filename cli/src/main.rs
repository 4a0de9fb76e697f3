//! The `hindcast` command.

/// Every step frees and allocates tensors of the same sizes. glibc's allocator returns their pages to the system and faults
/// them in again, which takes longer than the arithmetic; this one keeps them.
#[global_allocator]
static ALLOCATOR: hindcast::Allocator = hindcast::Allocator;

fn main() -> std::process::ExitCode {
    // The expensive operations run in a pool on all cores. The waiting threads of candle's second pool would spin and take
    // those cores from training and the recorder.
    hindcast_model::ops::threads::one_for_elements();
    hindcast::main()
}
