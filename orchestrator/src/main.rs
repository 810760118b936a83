//! The one binary. Parsing and wiring are in `cli`.

fn main() -> std::process::ExitCode {
    orchestrator::cli::main()
}
