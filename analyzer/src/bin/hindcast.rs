//! The `hindcast` command.

/// A step frees and takes tensors of the same sizes over and over. glibc's allocator gives such pages back to the system and
/// faults them in again, which cost more than the arithmetic; mimalloc keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    hindcast_analyzer::commands::main()
}
