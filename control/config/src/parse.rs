// SPDX-License-Identifier: Apache-2.0
//! Reading `config.toml`: all that is wrong at once, with lines and names.

use core::fmt;
use core::ops::Range;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Place, Problem};
use crate::{Config, Kind};

/// More problems of syntax than this are consequences of the first ones.
const SYNTAX_PROBLEMS_MAX: usize = 5;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    file: String,
    problems: Vec<ParseProblem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseProblem {
    /// The line, counted from 1, if there is one to point at.
    pub line: Option<usize>,
    /// The item, what is wrong and what would be right.
    pub text: String,
}

impl ParseError {
    /// The file, as the caller of [`Config::parse`] named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Everything that is wrong, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[ParseProblem] {
        &self.problems
    }

    /// A sentence for each problem, with file and line: "config.toml:7: port wan: …".
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        self.problems.iter().map(|problem| self.sentence(problem)).collect()
    }

    fn sentence(&self, problem: &ParseProblem) -> String {
        match problem.line {
            Some(line) => format!("{}:{line}: {}", self.file, problem.text),
            None => format!("{}: {}", self.file, problem.text),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().join("\n"))
    }
}

impl core::error::Error for ParseError {}

impl Config {
    /// Reads and [checks](Config::check) the text of a `config.toml`. `source` is what errors call the file.
    ///
    /// # Errors
    /// All problems that were found: of syntax; or else in single entries; or else between them.
    pub fn parse(text: &str, source: &str) -> Result<Config, ParseError> {
        let lines = Lines::of(text);
        let error = |mut problems: Vec<ParseProblem>| {
            problems.sort_by_key(|problem| problem.line.unwrap_or(0));
            ParseError { file: source.to_owned(), problems }
        };
        let (document, syntax) = DeTable::parse_recoverable(text);
        if !syntax.is_empty() {
            return Err(error(lines.syntax(text, &syntax)));
        }
        let mut reader = Reader { lines: &lines, places: HashMap::new(), problems: Vec::new() };
        let config = reader.config(document.into_inner());
        if !reader.problems.is_empty() {
            return Err(error(reader.problems));
        }
        match config.check() {
            Ok(()) => Ok(config),
            Err(problems) => Err(error(problems.iter().map(|problem| reader.located(problem)).collect())),
        }
    }
}

/// Where lines begin.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(place, _)| place + 1);
        Self { starts: [0].into_iter().chain(breaks).collect() }
    }

    fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn syntax(&self, text: &str, errors: &[toml::de::Error]) -> Vec<ParseProblem> {
        let problem = |error: &toml::de::Error| {
            let line = error.span().map(|span| self.number(span.start));
            let key =
                error.span().and_then(|span| text.get(span)).filter(|_| error.message() == "duplicate key");
            let text = match key {
                Some(key) => format!("{key} is given twice; delete one"),
                None => format!("this is not TOML: {}", error.message()),
            };
            ParseProblem { line, text }
        };
        errors.iter().take(SYNTAX_PROBLEMS_MAX).map(problem).collect()
    }
}

/// Lines of an entry and of its fields.
struct EntryLines {
    line: usize,
    fields: Vec<(String, usize)>,
}

struct Reader<'a> {
    lines: &'a Lines,
    places: HashMap<(Kind, usize), EntryLines>,
    problems: Vec<ParseProblem>,
}

impl Reader<'_> {
    /// Each entry on its own, so that one error does not hide the others.
    fn config(&mut self, document: DeTable<'_>) -> Config {
        let mut config = Config::default();
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "manual_keying" => config.manual_keying = self.setting("manual_keying", value),
                "loopbacks" => config.loopbacks = self.loopbacks(value),
                "port" => config.ports = self.entries(Kind::Port, value),
                "neighbor" => config.neighbors = self.entries(Kind::Neighbor, value),
                "route" => config.routes = self.entries(Kind::Route, value),
                "protection" => config.protections = self.entries(Kind::Protection, value),
                "tunnel" => config.tunnels = self.entries(Kind::Tunnel, value),
                "policy" => config.policies = self.entries(Kind::Policy, value),
                "sa" => config.sas = self.entries(Kind::Sa, value),
                "class_map" => config.class_maps = self.entries(Kind::ClassMap, value),
                "policy_map" => config.policy_maps = self.entries(Kind::PolicyMap, value),
                "dscp_map" => config.dscp_maps = self.entries(Kind::DscpMap, value),
                unknown => {
                    let text = format!(
                        "{unknown:?} is not known here; there are manual_keying, loopbacks, [[port]], [[neighbor]], [[route]], [[protection]], [[tunnel]], [[policy]], [[sa]], [[class_map]], [[policy_map]] and [[dscp_map]]"
                    );
                    self.complain(key.span(), text);
                }
            }
        }
        config
    }

    fn complain(&mut self, span: Range<usize>, text: String) {
        self.problems.push(ParseProblem { line: Some(self.lines.number(span.start)), text });
    }

    fn setting<T: DeserializeOwned>(&mut self, name: &str, value: Spanned<DeValue<'_>>) -> Option<T> {
        let line = self.lines.number(value.span().start);
        self.places.insert((Kind::Setting, 0), EntryLines { line, fields: Vec::new() });
        match T::deserialize(value.into_deserializer()) {
            Ok(value) => Some(value),
            Err(error) => {
                let text = format!("{name}: {}", plain(error.message()));
                self.problems.push(ParseProblem { line: Some(line), text });
                None
            }
        }
    }

    fn loopbacks(&mut self, value: Spanned<DeValue<'_>>) -> Vec<core::net::IpAddr> {
        #[derive(Deserialize)]
        struct Loopbacks(#[serde(with = "crate::values::singles")] Vec<core::net::IpAddr>);

        let items = value.get_ref().as_array().into_iter().flat_map(|array| array.iter());
        for (position, item) in items.enumerate() {
            let line = self.lines.number(item.span().start);
            self.places.insert((Kind::Loopback, position), EntryLines { line, fields: Vec::new() });
        }
        self.setting("loopbacks", value).map_or_else(Vec::new, |Loopbacks(addresses)| addresses)
    }

    fn entries<T: DeserializeOwned>(&mut self, kind: Kind, value: Spanned<DeValue<'_>>) -> Vec<T> {
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.complain(span, format!("{kind} is a list of tables; write [[{kind}]]"));
            return Vec::new();
        };
        let mut entries = Vec::with_capacity(items.len());
        for (position, item) in items.into_iter().enumerate() {
            let header = Header::of(kind, position, &item);
            self.places.insert((kind, position), header.lines(self.lines));
            match T::deserialize(item.into_deserializer()) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    let problem = header.problem(&error, self.lines);
                    self.problems.push(problem);
                }
            }
        }
        entries
    }

    fn located(&self, problem: &Problem) -> ParseProblem {
        let line = problem.place.as_ref().and_then(|place| self.line(place));
        ParseProblem { line, text: problem.to_string() }
    }

    fn line(&self, place: &Place) -> Option<usize> {
        let entry = self.places.get(&(place.kind, place.position))?;
        let field = entry.fields.iter().find(|(name, _)| Some(name.as_str()) == place.field);
        Some(field.map_or(entry.line, |(_, line)| *line))
    }
}

/// What can be said of an entry before it is understood.
struct Header {
    kind: Kind,
    /// Kind and name, or its place in the list.
    name: String,
    span: Range<usize>,
    /// Names of fields, where they stand, and where their values end.
    fields: Vec<(String, Range<usize>)>,
}

impl Header {
    fn of(kind: Kind, position: usize, item: &Spanned<DeValue<'_>>) -> Self {
        let table = item.get_ref().as_table();
        let fields = table
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.get_ref().to_string(), name.span().start..value.span().end));
        let label = table.and_then(|table| label(kind, table));
        let number = position + 1;
        let name =
            label.map_or_else(|| format!("[[{kind}]] number {number}"), |label| format!("{kind} {label}"));
        Self { kind, name, span: item.span(), fields: fields.collect() }
    }

    fn lines(&self, lines: &Lines) -> EntryLines {
        let field = |(name, span): &(String, Range<usize>)| (name.clone(), lines.number(span.start));
        EntryLines { line: lines.number(self.span.start), fields: self.fields.iter().map(field).collect() }
    }

    fn problem(&self, error: &toml::de::Error, lines: &Lines) -> ParseProblem {
        let start = error.span().map_or(self.span.start, |span| span.start);
        let field = self.fields.iter().find(|(_, span)| span.contains(&start));
        let line = Some(lines.number(start));
        let message = error.message();
        let said = match missing(message) {
            Some(absent) if field.is_none() => {
                format!("{absent} is missing; add {}", example(self.kind, absent))
            }
            Some(absent) => format!("{absent} is missing; add it"),
            None => plain(message),
        };
        let text = match field {
            // What is said of a key names the key.
            Some((name, _)) if !said.contains(&format!("`{name}`")) => {
                format!("{}: {name}: {said}", self.name)
            }
            _ => format!("{}: {said}", self.name),
        };
        ParseProblem { line, text }
    }
}

/// serde's words about types as those of values.
fn plain(message: &str) -> String {
    let types = message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "));
    match types {
        Some((given, "a boolean")) => format!("{given} will not do; give true or false"),
        Some((given, "a sequence")) => format!("{given} will not do; give a list, as in [\"…\"]"),
        Some((given, expected)) => format!("{given} will not do; give {expected}"),
        None => message.to_owned(),
    }
}

/// The field that serde misses.
fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// What a field could be, for those that an entry must have.
fn example(kind: Kind, field: &str) -> &'static str {
    match (kind, field) {
        (Kind::Port, "name") => "name = \"…\", a port of dataplane.toml",
        (_, "name") => "name = \"…\", by which others refer to it",
        (_, "side") => "side = \"protected\" or side = \"unprotected\"",
        (_, "port") => "port = \"…\", the name of a [[port]]",
        (_, "address") => "address = \"…\", the neighbor's IPv4 or IPv6 address",
        (_, "mac") => "mac = \"…\", an Ethernet address such as \"02:00:00:00:00:09\"",
        (_, "prefix") => "prefix = \"…\", such as \"10.2.0.0/16\"",
        (_, "local") => "local = \"…\", our ESP endpoint's address",
        (_, "remote") => "remote = \"…\", the peer's ESP endpoint's address",
        (_, "source") => "source = \"…\", our address in the delivery header",
        (_, "destination") => "destination = \"…\", the peer's address in the delivery header",
        (_, "action") => "action = \"protect\", action = \"bypass\" or action = \"discard\"",
        (_, "protection") => "protection = \"…\", the name of a [[protection]]",
        (_, "direction") => "direction = \"inbound\" or direction = \"outbound\"",
        (_, "spi") => "spi = …, such as 0x1001",
        (_, "criteria") => "criteria = [{ dscp = [\"EF\"] }], or whatever its packets have in common",
        (_, "classes") => "classes = [{ class = \"class-default\", bandwidth = \"100 %\" }], or more of them",
        _ => "it",
    }
}

/// The name of an entry, from the fields that make it.
fn label(kind: Kind, table: &DeTable<'_>) -> Option<String> {
    let text = |field: &str| table.get(field).and_then(|value| value.get_ref().as_str());
    match kind {
        Kind::Port
        | Kind::Protection
        | Kind::Tunnel
        | Kind::Policy
        | Kind::ClassMap
        | Kind::PolicyMap
        | Kind::DscpMap => text("name").map(str::to_owned),
        Kind::Route => text("prefix").map(str::to_owned),
        Kind::Neighbor => {
            let address = text("address")?;
            Some(text("port").map_or_else(|| address.to_owned(), |port| format!("{address} on port {port}")))
        }
        Kind::Sa => {
            let integer = table.get("spi")?.get_ref().as_integer()?;
            let spi = u32::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            Some(format!("{} 0x{spi:08x}", text("direction")?))
        }
        Kind::Setting | Kind::Loopback => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = include_str!("../tests/full.toml");

    #[test]
    fn problems_name_file_and_line_in_the_order_of_the_file() {
        let text = "[[port]]\nname = \"a\"\n[[tunnel]]\nname = 5\n\n[[port]]\nname = \"b\"\nside = \"up\"\n";
        let error = Config::parse(text, "/etc/config.toml").unwrap_err();
        let start: Vec<_> = error.sentences().iter().map(|said| said[..24].to_owned()).collect();
        assert_eq!(
            start,
            ["/etc/config.toml:1: port", "/etc/config.toml:4: [[tu", "/etc/config.toml:8: port"]
        );
        assert_eq!(error.to_string(), error.sentences().join("\n"));
        assert_eq!((error.file(), error.problems().len()), ("/etc/config.toml", 3));
    }

    #[test]
    fn several_mistakes_between_entries_are_told_at_once() {
        let text = FULL
            .replace("source = \"192.0.2.1\"", "source = \"192.0.2.77\"")
            .replace("via = \"192.0.2.254\"", "via = \"203.0.113.1\"")
            .replace("address = \"192.0.2.9\"", "address = \"192.0.2.1\"");
        let error = Config::parse(&text, "f").unwrap_err();
        let items: Vec<_> =
            error.problems().iter().map(|said| said.text.split(": ").next().unwrap()).collect();
        assert_eq!(items, ["neighbor 192.0.2.1 on port wan", "route 0.0.0.0/0", "tunnel branch-7"]);
    }

    /// Text with pieces of it removed, doubled, moved and overwritten.
    fn damaged() -> impl Strategy<Value = String> {
        let edit = (0u8..5, any::<prop::sample::Index>(), 1usize..40, any::<char>());
        prop::collection::vec(edit, 1..6).prop_map(|edits| {
            let mut text: Vec<char> = FULL.chars().collect();
            for (kind, place, length, character) in edits {
                let from = place.index(text.len().max(1)).min(text.len());
                let to = (from + length).min(text.len());
                match kind {
                    0 => drop(text.drain(from..to)),
                    1 => {
                        let piece = text[from..to].to_vec();
                        drop(text.splice(to..to, piece));
                    }
                    2 => text.insert(from, character),
                    3 => text.insert(from, ['\"', '[', ']', '=', '0', '9', '.', ':', '\n', '-'][length % 10]),
                    _ => text[from..to].reverse(),
                }
            }
            text.into_iter().collect()
        })
    }

    proptest! {
        #[test]
        fn damaged_text_is_refused_with_words_or_means_something(text in damaged()) {
            match Config::parse(&text, "damaged") {
                Ok(config) => prop_assert_eq!(Config::parse(&config.to_toml(), "written"), Ok(config)),
                Err(error) => {
                    prop_assert!(!error.problems().is_empty());
                    let last = text.lines().count() + 1;
                    prop_assert!(error.problems().iter().all(|said| !said.text.is_empty() && said.line.is_none_or(|line| (1..=last).contains(&line))));
                }
            }
        }

        #[test]
        fn any_text_is_refused_with_words_or_means_something(text in ".{0,200}") {
            if let Err(error) = Config::parse(&text, "any") {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
