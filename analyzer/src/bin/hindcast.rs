//! The `hindcast` command.

fn main() -> std::process::ExitCode {
    hindcast_analyzer::commands::main()
}
