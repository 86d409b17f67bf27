// SPDX-License-Identifier: Apache-2.0
//! Requests for SAs, with their keys: from standard input, in locked memory, or by the name of a file that control reads.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use sysmem::LockedBytes;

use super::CliError;
use super::args::{AddArgs, DirectionWord, ReplaceArgs, SaOptions};
use super::client::Body;

/// The most that is read from standard input: two keys and room for ends of line.
const STDIN_BYTES_MAX: usize = 1024;

/// What a request says where a key goes; no field contains it, for it is not printable in JSON strings otherwise.
const KEY_PLACE: &str = "\u{1}key\u{1}";

pub(super) fn add_body(args: &AddArgs) -> Result<Body, CliError> {
    let mut sa = fields(&args.protection, args.direction, args.spi, &args.options);
    let mut keys = Vec::new();
    match &args.key.key_file {
        Some(file) => drop(sa.insert("key_file".into(), absolute(file)?)),
        None => {
            sa.insert("key".into(), KEY_PLACE.into());
            keys = lines(read_stdin()?, 1)?;
        }
    }
    body(&Value::Object(sa), &keys)
}

pub(super) fn replace_body(args: &ReplaceArgs) -> Result<Body, CliError> {
    let wanted = wanted(args)?;
    let mut sas = Vec::new();
    for (direction, spi, file) in &wanted {
        let mut sa = fields(&args.protection, *direction, *spi, &args.options);
        match file {
            Some(file) => sa.insert("key_file".into(), absolute(file)?),
            None => sa.insert("key".into(), KEY_PLACE.into()),
        };
        sas.push(Value::Object(sa));
    }
    let keys = if args.key_stdin { lines(read_stdin()?, wanted.len())? } else { Vec::new() };
    body(&json!({ "sas": sas, "grace_seconds": args.grace }), &keys)
}

type Wanted<'a> = Vec<(DirectionWord, u32, Option<&'a Path>)>;

/// The SAs that are asked for, inbound first.
fn wanted(args: &ReplaceArgs) -> Result<Wanted<'_>, CliError> {
    let one = args.direction.zip(args.spi).map(|(direction, spi)| (direction, spi, args.key_file.as_deref()));
    let inbound = args.inbound_spi.map(|spi| (DirectionWord::Inbound, spi, args.inbound_key_file.as_deref()));
    let outbound =
        args.outbound_spi.map(|spi| (DirectionWord::Outbound, spi, args.outbound_key_file.as_deref()));
    let wanted: Wanted<'_> = [one, inbound, outbound].into_iter().flatten().collect();
    if wanted.is_empty() {
        return Err(CliError::Usage(
            "give --direction and --spi, or --inbound-spi, --outbound-spi or both".into(),
        ));
    }
    if !args.key_stdin && wanted.iter().any(|(_, _, file)| file.is_none()) {
        return Err(CliError::Usage("give a key file for each SA, or --key-stdin".into()));
    }
    Ok(wanted)
}

fn fields(protection: &str, direction: DirectionWord, spi: u32, options: &SaOptions) -> Map<String, Value> {
    let is_inbound = direction == DirectionWord::Inbound;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.into(), value);
        }
    };
    put("protection", Some(protection.into()));
    put("direction", Some(direction.word().into()));
    put("spi", Some(spi.into()));
    put("group", options.group.clone().map(Value::from));
    put("algorithm", options.algorithm.clone().map(Value::from));
    put("esn", options.esn.map(Value::from));
    put("replay_window", options.replay_window.filter(|_| is_inbound).map(Value::from));
    put("owner", options.owner.filter(|_| is_inbound).map(Value::from));
    let prefix = options.iv_prefix.filter(|_| !is_inbound);
    put("iv_prefix", prefix.map(|(bits, value)| json!({ "bits": bits, "value": value })));
    let lifetime = lifetime(options);
    put("lifetime", (!lifetime.is_empty()).then_some(Value::Object(lifetime)));
    fields
}

fn lifetime(options: &SaOptions) -> Map<String, Value> {
    let limits = [
        ("soft_bytes", options.soft_bytes),
        ("hard_bytes", options.hard_bytes),
        ("soft_packets", options.soft_packets),
        ("hard_packets", options.hard_packets),
        ("soft_seconds", options.soft_seconds.map(u64::from)),
        ("hard_seconds", options.hard_seconds.map(u64::from)),
    ];
    limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into()))).collect()
}

/// Control resolves relative names in its own folder, the user means this one.
fn absolute(file: &Path) -> Result<Value, CliError> {
    let path = std::path::absolute(file)
        .map_err(|error| CliError::Failed(format!("{}: {error}", file.display())))?;
    let text =
        path.to_str().ok_or_else(|| CliError::Failed(format!("{}: not a name in UTF-8", path.display())))?;
    Ok(text.into())
}

fn read_stdin() -> Result<LockedBytes, CliError> {
    // Not through the standard library's buffer, which nobody wipes.
    let stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    LockedBytes::read_from(stdin, STDIN_BYTES_MAX)
        .map_err(|error| CliError::Failed(format!("the key on standard input: {error}")))
}

/// Exactly `count` lines of hex digits.
fn lines(text: LockedBytes, count: usize) -> Result<Vec<LockedBytes>, CliError> {
    let lines: Vec<&[u8]> =
        text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    if lines.len() != count {
        let (what, found) =
            (if count == 1 { "one key, one line" } else { "two keys, inbound first" }, lines.len());
        return Err(CliError::Failed(format!("standard input has {found} lines; give {what} of hex")));
    }
    if lines.iter().any(|line| !line.iter().all(u8::is_ascii_hexdigit)) {
        return Err(CliError::Failed("the key on standard input: not a line of hex digits".into()));
    }
    lines.into_iter().map(|line| LockedBytes::copy_of(line).map_err(CliError::from)).collect()
}

/// `value` as JSON, with the keys in their places, all in locked memory.
fn body(value: &Value, keys: &[LockedBytes]) -> Result<Body, CliError> {
    let text = value.to_string();
    let place = Value::from(KEY_PLACE).to_string();
    let mut parts = text.split(place.as_str());
    let room = text.len() + keys.iter().map(|key| key.len() + 2).sum::<usize>();
    let mut bytes = LockedBytes::with_capacity(room)?;
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes())?;
    for (part, key) in parts.zip(keys) {
        for piece in [b"\"".as_slice(), key, b"\"", part.as_bytes()] {
            bytes.extend_from_slice(piece)?;
        }
    }
    Ok(Body::secret(bytes))
}
