// SPDX-License-Identifier: Apache-2.0
//! The CLI `greyhound`: flags in, requests to control, tables or JSON out. `docs/cli.md` is the manual.
//!
//! Exit status: 0 done, 1 refused or different, 2 wrong usage, 3 control cannot be reached.

mod args;
mod client;
mod keys;
mod lists;
mod qos;
mod rates;
mod table;
mod watch;

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use serde::Serialize;
use serde_json::Value;

use self::args::{
    Cli, Command, NeighborCommand, PolicyCommand, PortCommand, QosCommand, RouteCommand, SaCommand,
    TunnelCommand, WorkerCommand,
};
use self::client::{Body, Client};
use crate::api::DiffBody;
use crate::core::Changed;
use crate::failure::FailureBody;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// Control answered that it will not do it.
    #[error("{}", .0.error)]
    Refused(FailureBody),
    /// Something here: a file, standard input, an answer that cannot be understood.
    #[error("{0}")]
    Failed(String),
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(String),
    /// Not an error: what was compared differs.
    #[error("different")]
    Different,
}

impl CliError {
    fn status(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Failed(_) | Self::Different => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

impl CliError {
    /// Control knows the lines of what it was sent, but not the name of the file.
    fn in_file(mut self, file: &Path) -> Self {
        if let Self::Refused(body) = &mut self {
            for detail in &mut body.details {
                if let Some(rest) = detail.strip_prefix("configuration:") {
                    *detail = format!("{}:{rest}", file.display());
                }
            }
        }
        self
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the CLI on the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = sysmem::no_core_dumps() {
        report(&cli, &CliError::Failed(format!("core dumps could not be forbidden: {error}")));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&cli, &error.into()),
    };
    match runtime.block_on(run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&cli, &error),
    }
}

/// Says on standard error what went wrong: a sentence and its details, or the JSON object.
fn report(cli: &Cli, error: &CliError) -> ExitCode {
    let mut out = io::stderr().lock();
    let body = match error {
        CliError::Different => return ExitCode::from(error.status()),
        CliError::Refused(body) => body.clone(),
        other => FailureBody { error: other.to_string(), details: Vec::new() },
    };
    // There is nowhere left to complain to.
    let _ = if cli.json {
        writeln!(out, "{}", serde_json::to_string(&body).unwrap_or_default())
    } else {
        let details = body.details.iter().map(|detail| format!("\n  {detail}")).collect::<String>();
        writeln!(out, "greyhound: {}{details}", body.error)
    };
    ExitCode::from(error.status())
}

/// What a command prints: rows for people, or an object for programs.
struct Output {
    json: bool,
}

impl Output {
    fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text =
            serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
        self.text(&text)
    }

    fn text(&self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(CliError::from),
        }
    }

    /// The value as JSON, or as `text` makes of it.
    fn either<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        if self.json { self.json(value) } else { self.text(&text(value)) }
    }
}

async fn run(cli: &Cli) -> Result<(), CliError> {
    let client = Client::new(cli.place.control_socket());
    let out = Output { json: cli.json };
    match &cli.command {
        Command::Status => lists::status(&client, &out).await,
        Command::Config => show_config(&client, &out).await,
        Command::Apply { file, dry_run } => {
            let path = dry_run_path("/v1/config", *dry_run);
            let answer = client.send("PUT", &path, read_configuration(file)?).await;
            changed(&out, answer.map_err(|error| error.in_file(file))?)
        }
        Command::Diff { file } => {
            let file = file.clone().unwrap_or_else(|| cli.place.config_file());
            compare(&client, &out, &file).await
        }
        Command::Sa(command) => sa(&client, &out, command).await,
        Command::Tunnel(TunnelCommand::List) => lists::tunnels(&client, &out).await,
        Command::Route(RouteCommand::List) => lists::routes(&client, &out).await,
        Command::Policy(PolicyCommand::List) => lists::policies(&client, &out).await,
        Command::Neighbor(NeighborCommand::List) => lists::neighbors(&client, &out).await,
        Command::Port(PortCommand::List) => lists::ports(&client, &out).await,
        Command::Worker(WorkerCommand::List { interval }) => lists::workers(&client, &out, *interval).await,
        Command::Qos(QosCommand::Show { port, tunnel }) => {
            qos::show(&client, &out, port.as_deref(), tunnel.as_deref()).await
        }
        Command::Drops { all, workers } => lists::drops(&client, &out, *all, *workers).await,
        Command::Events { since } => lists::events(&client, &out, *since).await,
        Command::Watch { interval } => watch::run(&client, &out, *interval).await,
    }
}

async fn sa(client: &Client, out: &Output, command: &SaCommand) -> Result<(), CliError> {
    match command {
        SaCommand::List => lists::sas(client, out).await,
        SaCommand::Add(add) => {
            let body = keys::add_body(add)?;
            changed(out, client.send("POST", &dry_run_path("/v1/sas", add.dry_run), body).await?)
        }
        SaCommand::Replace(replace) => {
            let body = keys::replace_body(replace)?;
            changed(out, client.send("POST", "/v1/sas/replace", body).await?)
        }
        SaCommand::Delete { direction, spi, dry_run } => {
            let path = format!("/v1/sas/{}/{spi}", direction.word());
            changed(out, client.send("DELETE", &dry_run_path(&path, *dry_run), Body::none()).await?)
        }
    }
}

fn dry_run_path(path: &str, dry_run: bool) -> String {
    if dry_run { format!("{path}?dry_run=true") } else { path.to_owned() }
}

/// Says what became of a change.
fn changed(out: &Output, answer: Value) -> Result<(), CliError> {
    if out.json {
        return out.json(&answer);
    }
    let changed: Changed = client::understand(answer)?;
    for warning in &changed.warnings {
        let _ = writeln!(io::stderr().lock(), "warning: {warning}");
    }
    out.text(&table::changed(&changed))
}

async fn show_config(client: &Client, out: &Output) -> Result<(), CliError> {
    if out.json {
        return out.json(&client.get("/v1/config").await?);
    }
    out.text(&client.get_text("/v1/config").await?)
}

async fn compare(client: &Client, out: &Output, file: &Path) -> Result<(), CliError> {
    let answer = client.send("POST", "/v1/config/diff", read_configuration(file)?).await;
    let answer: DiffBody = client::understand(answer.map_err(|error| error.in_file(file))?)?;
    if out.json {
        out.json(&answer)?;
    } else if answer.different {
        out.text(&answer.text)?;
    }
    if answer.different { Err(CliError::Different) } else { Ok(()) }
}

/// A configuration from a file, or from standard input for `-`.
fn read_configuration(file: &Path) -> Result<Body, CliError> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|content| text = content)
    };
    read.map_err(|error| CliError::Failed(format!("{}: {error}", file.display())))?;
    Ok(Body::text(text))
}
