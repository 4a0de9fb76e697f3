//! The number of threads of candle's operations.

use super::environment;

/// The variable that rayon reads, and candle for its matrix products.
const VARIABLE: &str = "RAYON_NUM_THREADS";
/// The variable for candle's element-wise operations, which have a pool of their own. Its threads spin while they wait.
const ELEMENTWISE: &str = "CANDLE_NUM_THREADS";

/// The number of threads that the user of this process has set in the environment.
pub fn chosen() -> Option<usize> {
    let text = std::env::var(VARIABLE).ok()?;
    text.parse().ok().filter(|&n| n > 0)
}

/// Lets candle compute its element-wise operations on the thread that asks for them, unless the environment says otherwise. Call
/// it as [`set`]. It is right where several threads compute at the same time: they would wait for each other's operations.
pub fn one_for_elements() {
    if std::env::var_os(ELEMENTWISE).is_none() {
        environment::set(ELEMENTWISE, "1");
    }
}

/// Sets the number of threads on which candle's operations and rayon's pool compute. Call it at the beginning of `main`, before
/// other threads exist: a pool that has been started keeps its threads.
pub fn set(threads: usize) {
    let threads = threads.max(1).to_string();
    environment::set(VARIABLE, &threads);
    if std::env::var_os(ELEMENTWISE).is_none() {
        environment::set(ELEMENTWISE, &threads);
    }
}
