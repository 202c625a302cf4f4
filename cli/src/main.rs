//! The `quadriga` command.

mod args;
mod bindgen;
mod call;
mod completions;
mod config;
mod contract;
mod demo;
mod doctor;
mod exec;
mod failure;
mod home;
mod hooks;
mod host;
mod inspect;
#[cfg(unix)]
mod live;
mod log;
mod man;
mod output;
mod package;
mod report;
mod schema;
mod secrets;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output { json: cli.json, verbose: cli.verbose };
    log::start(cli.verbose);
    let result = match cli.command {
        Command::Inspect(args) => inspect::run(args, output),
        Command::Hooks(args) => hooks::run(args, output),
        Command::Bindgen(args) => bindgen::run(args, output),
        Command::Call(args) => call::run(args, output),
        Command::Exec(args) => exec::run(args, output),
        Command::Pack(args) => package::pack(args, output),
        Command::Unpack(args) => package::unpack(args, output),
        Command::Sign(args) => package::sign(args, output),
        Command::Verify(args) => package::verify(&args, output),
        Command::Keygen(args) => package::keygen(&args, output),
        Command::Install(args) => home::install(args, output),
        Command::Update(args) => home::update(args, output),
        Command::Rollback(args) => home::rollback(args, output),
        Command::Enable(args) => home::enable(args, output),
        Command::Disable(args) => home::disable(args, output),
        Command::Uninstall(args) => home::uninstall(args, output),
        Command::Deps(args) => home::deps(args, output),
        Command::List(args) => home::list(args, output),
        Command::Show(args) => home::show(args, output),
        Command::Config(args) => config::run(args, output),
        Command::Grant(args) => home::grant(args, output),
        Command::Revoke(args) => home::revoke(args, output),
        Command::Grants(args) => home::grants(args, output),
        Command::Licences(args) => home::licences(args, output),
        Command::Trust(args) => home::trust(args, output),
        Command::Pin(args) => home::pin(args, output),
        Command::Unpin(args) => home::unpin(args, output),
        Command::DeadLetters(args) => home::dead_letters(args, output),
        Command::Audit(args) => home::audit(args, output),
        Command::Backup(args) => home::backup(args, output),
        Command::Restore(args) => home::restore(args, output),
        #[cfg(unix)]
        Command::Run(args) => live::run(args, output),
        #[cfg(unix)]
        Command::Status(args) => live::status(&args, output),
        #[cfg(unix)]
        Command::Health(args) => live::health(&args, output),
        #[cfg(unix)]
        Command::Metrics(args) => live::metrics(&args, output),
        #[cfg(unix)]
        Command::Jobs(args) => live::jobs(&args, output),
        #[cfg(unix)]
        Command::Top(args) => live::top(&args, output),
        #[cfg(unix)]
        Command::Reload(args) => live::reload(&args, output),
        Command::Demo(args) => demo::run(args, output),
        Command::Doctor(args) => doctor::run(&args, output),
        Command::Schema => schema::run(output),
        Command::Man(args) => man::run(&args, output),
        Command::Completions(args) => completions::run(&args, output),
        #[cfg(target_os = "linux")]
        Command::Worker => Ok(quadriga::worker_main()),
    };
    result.unwrap_or_else(|error| output.failed(&error))
}
