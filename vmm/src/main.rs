//! The `trapgate` command.

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};
use trapgate::{
    bench,
    cli::{Cli, Command},
    doctor, exit, fuzz, run, syscalls,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return ExitCode::from(explain(&error));
        }
    };
    let code = match cli.command {
        Command::Run(args) => run::command(&args),
        Command::Doctor(args) => doctor::command(&args),
        Command::Syscalls(args) => syscalls::command(&args),
        Command::Bench(args) => bench::command(&args),
        Command::Fuzz(args) => fuzz::command(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trapgate", &mut script);
            print("the completions", &script)
        }
        Command::Man { command } => man(command.as_deref()),
    };
    ExitCode::from(code)
}

/// Help goes to standard output; a mistake is one line on standard error.
fn explain(error: &clap::Error) -> u8 {
    let usage = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == usage {
        // Nothing is left to tell the user with if even this cannot be printed.
        let _ = error.print();
        return if error.use_stderr() { exit::FAILURE } else { 0 };
    }
    let text = error.to_string();
    let first: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let first = first.join(" ");
    let message = first.strip_prefix("error: ").unwrap_or(&first);
    exit::report(&format!("{message}; see --help"))
}

/// The page of one subcommand, or of the whole with its subcommands' pages after it.
fn man(command: Option<&str>) -> u8 {
    let mut cli = Cli::command();
    cli.build();
    let wanted = |c: &&clap::Command| {
        !c.is_hide_set() && c.get_name() != "help" && command.is_none_or(|n| n == c.get_name())
    };
    let mut pages: Vec<clap::Command> = cli.get_subcommands().filter(wanted).cloned().collect();
    if pages.is_empty() {
        let name = command.unwrap_or_default();
        return exit::report(&format!("no subcommand '{name}' has a man page; see --help"));
    }
    if command.is_none() {
        pages.insert(0, cli);
    }
    let mut text = Vec::new();
    for page in pages {
        if let Err(error) = clap_mangen::Man::new(page).render(&mut text) {
            return exit::report(&format!("cannot make the man page: {error}"));
        }
    }
    print("the man page", &text)
}

fn print(what: &str, text: &[u8]) -> u8 {
    let mut out = std::io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => 0,
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => exit::report(&format!("cannot print {what}: {error}")),
    }
}
