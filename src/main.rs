//! Process entry: parse the command line, call `cli::run`, turn the result into an exit code.

fn main() {}
