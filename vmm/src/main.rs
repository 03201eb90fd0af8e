//! The `trapgate` command.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use trapgate::{
    bench,
    cli::{Cli, Command},
    doctor, exit, run, syscalls,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { exit::FAILURE } else { 0 };
            // Nothing is left to tell the user with if even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let code = match cli.command {
        Command::Run(args) => run::command(&args),
        Command::Doctor(args) => doctor::command(&args),
        Command::Syscalls(args) => syscalls::command(&args),
        Command::Bench(args) => bench::command(&args),
        Command::BenchGuest { item } => bench::guest_command(&item),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "trapgate", &mut std::io::stdout());
            0
        }
        Command::Man => {
            match clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()) {
                Ok(()) => 0,
                Err(error) => exit::report(&format!("cannot print the man page: {error}")),
            }
        }
    };
    ExitCode::from(code)
}
