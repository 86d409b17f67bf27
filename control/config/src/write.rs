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
        entries(&mut text, &self.class_maps);
        entries(&mut text, &self.policy_maps);
        entries(&mut text, &self.dscp_maps);
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
            let _ = match value.as_array().filter(|items| items.iter().all(Value::is_table)) {
                Some(items) => write_list(text, &name, items),
                None => writeln!(text, "{name} = {}", shown(T::KIND, &name, &value)),
            };
        }
    }
}

/// A list of tables, a line each.
fn write_list(text: &mut String, name: &str, items: &[Value]) -> core::fmt::Result {
    writeln!(text, "{name} = [")?;
    items.iter().try_for_each(|item| writeln!(text, "    {item},"))?;
    writeln!(text, "]")
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::pair;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seed: u64) {
            for config in <[Config; 2]>::from(pair(seed)) {
                let text = config.to_toml();
                match Config::parse(&text, "written") {
                    Ok(read) => prop_assert_eq!(read, config),
                    Err(error) => return Err(TestCaseError::fail(format!("{error}\n{text}"))),
                }
            }
        }

        #[test]
        fn json_says_the_same(seed: u64) {
            let (config, _) = pair(seed);
            let json = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        }
    }

    #[test]
    fn nothing_is_written_of_an_empty_configuration() {
        assert_eq!(Config::default().to_toml(), "");
        assert_eq!(Config::parse("", "empty"), Ok(Config::default()));
    }

    #[test]
    fn json_refuses_with_the_same_words() {
        let error =
            serde_json::from_str::<crate::PortEntry>(r#"{"name": "wan", "side": "out"}"#).unwrap_err();
        assert!(
            error.to_string().starts_with("\"out\" will not do; give \"protected\" or \"unprotected\""),
            "{error}"
        );
        let sa =
            r#"{"protection": "a", "direction": "inbound", "spi": "0x1001", "key_id": "k", "owner": null}"#;
        assert_eq!(serde_json::from_str::<crate::SaEntry>(sa).unwrap().spi, 0x1001);
        let port = r#"{"name": "wan", "side": "protected", "mtu": 99999999999999999999}"#;
        assert!(serde_json::from_str::<crate::PortEntry>(port).is_err());
        let port = r#"{"name": "wan", "side": "protected", "mtu": 18446744073709551615}"#;
        let error = serde_json::from_str::<crate::PortEntry>(port).unwrap_err();
        assert!(error.to_string().contains("out of range; give 576 to 9216"), "{error}");
    }
}
