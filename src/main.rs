//! Process entry: parse the command line, call `cli::run`, turn the result into an exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// The system's allocator keeps what many threads have freed; this one gives it back, in a thread
/// of its own.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    kubewitness::cli::run()
}
