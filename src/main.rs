//! Process entry: parse the command line, call `cli::run`, turn the result into an exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Threads that come and go would each keep an arena of the system's allocator; this one gives
/// memory back, and is faster.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    kubewitness::cli::run()
}
