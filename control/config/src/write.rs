// SPDX-License-Identifier: Apache-2.0
//! A configuration as TOML, as a person would write it: one table an entry, defaults left out, SPIs in hexadecimal.

use core::fmt::Write;

use toml::{Table, Value};

use crate::{Config, Item, Kind};

impl Config {
    /// The configuration as `config.toml`; [`Config::parse`] reads the same from it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        if let Some(keying) = &self.manual_keying {
            line(&mut text, "manual_keying", &Value::try_from(keying));
        }
        if !self.loopbacks.is_empty() {
            let bare = Config { loopbacks: self.loopbacks.clone(), ..Config::default() };
            fields(&bare).iter().for_each(|(name, value)| line(&mut text, name, &Ok(value.clone())));
        }
        entries(&mut text, &self.ports);
        entries(&mut text, &self.neighbors);
        entries(&mut text, &self.routes);
        entries(&mut text, &self.protections);
        entries(&mut text, &self.tunnels);
        entries(&mut text, &self.policies);
        entries(&mut text, &self.sas);
        text
    }
}

fn entries<T: Item>(text: &mut String, items: &[T]) {
    for item in items {
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[[{}]]", T::KIND);
        for (name, value) in fields(item) {
            let _ = writeln!(text, "{name} = {}", shown(T::KIND, &name, &value));
        }
    }
}

fn line(text: &mut String, name: &str, value: &Result<Value, toml::ser::Error>) {
    if let Ok(value) = value {
        let _ = writeln!(text, "{name} = {value}");
    }
}

/// The fields of an entry that are not at their defaults, in their order.
pub(crate) fn fields<T: serde::Serialize>(item: &T) -> Table {
    // Every field is a text, a number that TOML holds, a boolean, or a list or table of these.
    Table::try_from(item).unwrap_or_default()
}

/// A field's value as it stands in the file.
pub(crate) fn shown(kind: Kind, field: &str, value: &Value) -> String {
    match value {
        Value::Integer(spi) if kind == Kind::Sa && field == "spi" => format!("0x{spi:08x}"),
        other => other.to_string(),
    }
}
