// SPDX-License-Identifier: Apache-2.0
//! The commands and flags of `greyhound`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::place::Place;

/// Look at a Greyhound headend, and change it while it runs.
#[derive(Parser)]
#[command(name = "greyhound", version, after_help = EXAMPLES, subcommand_required = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) place: Place,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  greyhound status
  greyhound diff config.toml               what `apply` would change
  greyhound apply config.toml --dry-run    ask the dataplane too, change nothing
  greyhound apply config.toml
  greyhound sa list
  greyhound drops
  greyhound watch

Exit status: 0 done; 1 refused, or different; 2 wrong usage; 3 greyhound-control cannot be reached.";

const ADD_EXAMPLES: &str = "\
Examples:
  greyhound sa add --protection branch-7 --direction inbound --spi 0x1001 \\
      --key-file /etc/greyhound/main/keys/branch-7-in.key
  generate-key | greyhound sa add --protection branch-7 --direction outbound --spi 0x2001 --key-stdin

A key is one line of hex: AES key, then 4 bytes of salt (RFC 4106): 20 bytes for AES-128, 28 for AES-192, 36 for
AES-256. A key file must be 0600 and belong to root or to the user that greyhound-control runs as. Keys are never given
as arguments, which everybody on the machine can read.";

const REPLACE_EXAMPLES: &str = "\
Examples:
  greyhound sa replace --protection branch-7 --inbound-spi 0x1002 --inbound-key-file in.key \\
      --outbound-spi 0x2002 --outbound-key-file out.key
  generate-two-keys | greyhound sa replace --protection branch-7 --inbound-spi 0x1002 --outbound-spi 0x2002 --key-stdin
  greyhound sa replace --protection branch-7 --direction outbound --spi 0x2002 --key-file out.key
  greyhound sa replace --protection branch-7 --group voice --direction outbound --spi 0x2012 --key-file voice.key

New inbound SAs are installed first, then outbound is switched; old inbound SAs stay for --grace seconds, for what is
still under way. With --key-stdin and both directions the first line is the inbound key, the second the outbound key.
What is not said is taken over from the SA that is replaced. SAs of other class groups stay; without --group it is those
of the default group that are replaced.";

const QOS_EXAMPLES: &str = "\
Examples:
  greyhound qos show
  greyhound qos show --tunnel branch-7
  greyhound qos show --json | jq '.[] | select(.dropped_packets > 0)'

Delays are those in the scheduler, at most a quarter too high. docs/qos.md explains the columns.";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show whether the dataplane is there and runs the configuration.
    Status,
    /// Print the running configuration, ready for `apply`.
    Config,
    /// Replace the whole configuration by a file.
    ///
    /// It is checked here and by the dataplane, and applied whole or not at all. SAs that stay the same go on undisturbed.
    Apply {
        /// The file; - for standard input.
        file: PathBuf,
        /// Only check, and say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what would change if a file were applied; exit status 1 if anything would.
    Diff {
        /// The file; - for standard input [default: CONFIG_DIR/config.toml].
        file: Option<PathBuf>,
    },
    /// Security associations.
    #[command(subcommand)]
    Sa(SaCommand),
    /// GRE tunnels.
    #[command(subcommand)]
    Tunnel(TunnelCommand),
    /// Routes.
    #[command(subcommand)]
    Route(RouteCommand),
    /// The SPD.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Neighbours: ARP and IPv6 neighbour discovery.
    #[command(subcommand)]
    Neighbor(NeighborCommand),
    /// Ports.
    #[command(subcommand)]
    Port(PortCommand),
    /// Workers.
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Quality of service.
    #[command(subcommand)]
    Qos(QosCommand),
    /// Show how many packets were dropped, and why.
    Drops {
        /// Also reasons that dropped nothing.
        #[arg(long)]
        all: bool,
        /// A column for each worker.
        #[arg(long)]
        workers: bool,
    },
    /// Show what happened lately.
    Events {
        /// From this number on.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
    },
    /// Show rates, drops and events, again and again, until Ctrl-C.
    Watch {
        /// Seconds between two looks.
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
        interval: f64,
    },
}

#[derive(Subcommand)]
pub(super) enum SaCommand {
    /// List SAs with their counters and sequence numbers.
    List,
    /// Add an SA.
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<AddArgs>),
    /// Replace the SAs of a protection's class group, or those of one direction, without losing packets.
    #[command(after_help = REPLACE_EXAMPLES)]
    Replace(Box<ReplaceArgs>),
    /// Delete an SA.
    Delete {
        /// Its direction.
        direction: DirectionWord,
        /// Its SPI, as in 0x1001.
        #[arg(value_parser = spi)]
        spi: u32,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DirectionWord {
    /// We open with it.
    Inbound,
    /// We seal with it.
    Outbound,
}

impl DirectionWord {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

#[derive(Args)]
pub(super) struct AddArgs {
    /// The protection it belongs to.
    #[arg(long, value_name = "NAME")]
    pub(super) protection: String,
    /// Its direction.
    #[arg(long)]
    pub(super) direction: DirectionWord,
    /// Its SPI, 0x100 at least.
    #[arg(long, value_parser = spi)]
    pub(super) spi: u32,
    #[command(flatten)]
    pub(super) key: KeyArgs,
    #[command(flatten)]
    pub(super) options: SaOptions,
    /// Only check.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct KeyArgs {
    /// File with the key; control reads it again at each change and start.
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Read the key from standard input; control keeps it.
    #[arg(long)]
    pub(super) key_stdin: bool,
}

#[derive(Args)]
pub(super) struct ReplaceArgs {
    /// The protection whose SAs are replaced.
    #[arg(long, value_name = "NAME")]
    pub(super) protection: String,
    /// Replace this direction only.
    #[arg(long, requires = "spi", conflicts_with_all = ["inbound_spi", "outbound_spi"])]
    pub(super) direction: Option<DirectionWord>,
    /// With --direction: SPI of the new SA.
    #[arg(long, value_parser = spi, requires = "direction")]
    pub(super) spi: Option<u32>,
    /// With --direction: file with the key.
    #[arg(long, value_name = "FILE", requires = "direction", conflicts_with = "key_stdin")]
    pub(super) key_file: Option<PathBuf>,
    /// SPI of the new inbound SA.
    #[arg(long, value_parser = spi)]
    pub(super) inbound_spi: Option<u32>,
    /// File with its key.
    #[arg(long, value_name = "FILE", requires = "inbound_spi", conflicts_with = "key_stdin")]
    pub(super) inbound_key_file: Option<PathBuf>,
    /// SPI of the new outbound SA.
    #[arg(long, value_parser = spi)]
    pub(super) outbound_spi: Option<u32>,
    /// File with its key.
    #[arg(long, value_name = "FILE", requires = "outbound_spi", conflicts_with = "key_stdin")]
    pub(super) outbound_key_file: Option<PathBuf>,
    /// Read the keys from standard input, a line each, inbound first; control keeps them.
    #[arg(long)]
    pub(super) key_stdin: bool,
    /// How long the old inbound SAs stay, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) grace: u64,
    #[command(flatten)]
    pub(super) options: SaOptions,
}

#[derive(Args)]
pub(super) struct SaOptions {
    /// The class group of its protection [default: the one that takes what no other takes].
    #[arg(long, value_name = "NAME")]
    pub(super) group: Option<String>,
    /// ENCR_AES_GCM_16 (the default), ENCR_AES_GCM_12 or ENCR_AES_GCM_8.
    #[arg(long, value_name = "NAME")]
    pub(super) algorithm: Option<String>,
    /// Extended sequence numbers.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub(super) esn: Option<bool>,
    /// Inbound: anti-replay window in packets, a power of two from 64 to 8192; 0 for none [default: 1024].
    #[arg(long, value_name = "PACKETS")]
    pub(super) replay_window: Option<u16>,
    /// Inbound: the worker that owns the window [default: chosen by the dataplane].
    #[arg(long, value_name = "WORKER")]
    pub(super) owner: Option<u16>,
    /// Outbound: high bits of each IV, as BITS:VALUE (RFC 6054).
    #[arg(long, value_name = "BITS:VALUE", value_parser = iv_prefix)]
    pub(super) iv_prefix: Option<(u8, u32)>,
    /// Report the SA after this many payload bytes.
    #[arg(long, value_name = "BYTES")]
    pub(super) soft_bytes: Option<u64>,
    /// End the SA after this many payload bytes.
    #[arg(long, value_name = "BYTES")]
    pub(super) hard_bytes: Option<u64>,
    /// Report the SA after this many packets.
    #[arg(long, value_name = "PACKETS")]
    pub(super) soft_packets: Option<u64>,
    /// End the SA after this many packets.
    #[arg(long, value_name = "PACKETS")]
    pub(super) hard_packets: Option<u64>,
    /// Report the SA after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(super) soft_seconds: Option<u32>,
    /// End the SA after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(super) hard_seconds: Option<u32>,
}

macro_rules! only_list {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        #[derive(Subcommand)]
        pub(super) enum $name {
            $(#[$doc])*
            List,
        }
    )+};
}

only_list! {
    /// List tunnels with their MTU and counters.
    TunnelCommand,
    /// List routes, connected ones too.
    RouteCommand,
    /// List the SPD of each port, in order.
    PolicyCommand,
    /// List neighbours.
    NeighborCommand,
    /// List ports with their counters.
    PortCommand
}

#[derive(Subcommand)]
pub(super) enum QosCommand {
    /// Show every class of every port and tunnel with a service policy.
    ///
    /// What came, left, was dropped and waits, how long packets waited, and the shapers. Rates and bytes are those on the
    /// wire: delivery header, ESP and Ethernet with preamble and gap included.
    #[command(after_help = QOS_EXAMPLES)]
    Show {
        /// Only this port.
        #[arg(long, value_name = "NAME")]
        port: Option<String>,
        /// Only this tunnel.
        #[arg(long, value_name = "NAME")]
        tunnel: Option<String>,
    },
}

#[derive(Subcommand)]
pub(super) enum WorkerCommand {
    /// List workers with their load: the share of cycles spent on packets.
    List {
        /// Seconds over which the load is measured.
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
        interval: f64,
    },
}

fn spi(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number
        .filter(|spi| *spi >= 256)
        .ok_or_else(|| "give an SPI from 0x100 to 0xffffffff; 0 to 255 are reserved".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("give 0.1 to 3600 seconds".into()) }
}

fn iv_prefix(text: &str) -> Result<(u8, u32), String> {
    let (bits, value) = text.split_once(':').ok_or("give BITS:VALUE, as in 8:3")?;
    let bits = bits.parse().map_err(|_| "give BITS as a number from 0 to 32".to_owned())?;
    let value = value.parse().map_err(|_| "give VALUE as a number below 2^BITS".to_owned())?;
    Ok((bits, value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        for line in ["greyhound --json --run-dir /r sa list", "greyhound sa list --run-dir /r --json"] {
            let cli = parse(line).unwrap();
            assert!(cli.json && cli.place.control_socket().starts_with("/r"), "{line}");
        }
    }

    #[test]
    fn a_key_comes_from_a_file_or_from_standard_input_and_never_as_an_argument() {
        let add = "greyhound sa add --protection p --direction inbound --spi 0x1001";
        assert!(parse(&format!("{add} --key-file f")).is_ok());
        assert!(parse(&format!("{add} --key-stdin")).is_ok());
        for wrong in ["", " --key-file f --key-stdin", " --key 00", " --key-stdin 00"] {
            assert!(parse(&format!("{add}{wrong}")).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_reserved_spi_is_refused() {
        for spi in ["0", "255", "0xff", "x", "0x100000000", "-1"] {
            assert!(parse(&format!("greyhound sa delete inbound {spi}")).is_err(), "{spi}");
        }
        assert!(parse("greyhound sa delete inbound 256").is_ok());
    }

    #[test]
    fn replace_takes_one_direction_or_names_each() {
        let replace = "greyhound sa replace --protection p";
        for right in [
            "--direction inbound --spi 0x1001 --key-stdin",
            "--inbound-spi 0x1001 --inbound-key-file f --outbound-spi 0x1002 --outbound-key-file g",
            "--inbound-spi 0x1001 --outbound-spi 0x1002 --key-stdin --grace 0",
        ] {
            assert!(parse(&format!("{replace} {right}")).is_ok(), "{right}");
        }
        for wrong in [
            "--direction inbound --key-stdin",
            "--spi 0x1001 --key-stdin",
            "--direction inbound --spi 0x1001 --inbound-spi 0x1002 --key-stdin",
            "--inbound-key-file f",
            "--inbound-spi 0x1001 --inbound-key-file f --key-stdin",
        ] {
            assert!(parse(&format!("{replace} {wrong}")).is_err(), "{wrong}");
        }
    }
}
