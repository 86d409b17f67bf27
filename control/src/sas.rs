// SPDX-License-Identifier: Apache-2.0
//! SAs that come and go one by one: what a request says of a new one, and what a replacement does to a configuration.
//!
//! Pure, but for the key that a request may carry.

use config::{Config, SaEntry, SaName};
use messages::Direction;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Fields that a replacement does not take over from the SA it replaces.
const OWN_FIELDS: [&str; 4] = ["spi", "key_file", "key_id", "direction"];

/// A new SA as a request describes it: the fields of `[[sa]]`, and perhaps the key itself.
pub struct NewSa {
    fields: Map<String, Value>,
    key: Option<Zeroizing<String>>,
}

impl NewSa {
    /// Takes the request apart. `key`, a line of hex, does not stay among the fields.
    ///
    /// # Errors
    /// It is no object, or its key is no text.
    pub fn from_json(value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            return Err(
                "an SA is an object with the fields of [[sa]], and key for a key that control keeps".into()
            );
        };
        let key = match fields.remove("key") {
            None | Some(Value::Null) => None,
            Some(Value::String(key)) => Some(Zeroizing::new(key)),
            Some(_) => return Err("key: give a text, one line of hex".into()),
        };
        if key.is_some() && (fields.contains_key("key_file") || fields.contains_key("key_id")) {
            return Err("give one of key, key_file and key_id".into());
        }
        Ok(Self { fields, key })
    }

    /// The entry, not yet with its key; what the request leaves open is as in `like`.
    ///
    /// # Errors
    /// Which field is wrong, and what would be right.
    pub fn into_entry(self, like: Option<&SaEntry>) -> Result<(SaEntry, Option<Zeroizing<String>>), String> {
        let mut fields = match like.map(serde_json::to_value) {
            Some(Ok(Value::Object(fields))) => fields,
            _ => Map::new(),
        };
        OWN_FIELDS.iter().for_each(|field| drop(fields.remove(*field)));
        fields.extend(self.fields);
        let entry = serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
        Ok((entry, self.key))
    }

    /// The SA of `config` that this one would replace: same protection, direction and group, the newest.
    #[must_use]
    pub fn predecessor<'a>(&self, config: &'a Config) -> Option<&'a SaEntry> {
        let protection = self.fields.get("protection")?.as_str()?;
        let direction = match self.fields.get("direction")?.as_str()? {
            "inbound" => Direction::Inbound,
            "outbound" => Direction::Outbound,
            _ => return None,
        };
        let group = self.fields.get("group").and_then(Value::as_str);
        config.sas.iter().rev().find(|sa| sa.place() == (protection, direction, group))
    }
}

/// What replacing SAs means for a configuration, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// With the new inbound SAs beside the old ones.
    pub inbound_added: Config,
    /// And with the outbound SAs switched.
    pub switched: Config,
    /// Inbound SAs that have a successor.
    pub retiring: Vec<SaName>,
}

impl Replacement {
    /// Plans to replace the SAs of the same protection, direction and group by `new`, inbound first (make before break).
    #[must_use]
    pub fn of(config: &Config, new: &[SaEntry]) -> Self {
        let is_replaced = |sa: &SaEntry| new.iter().any(|entry| entry.place() == sa.place());
        let with_direction = |direction| new.iter().filter(move |sa| sa.direction == direction).cloned();
        let mut inbound_added = config.clone();
        inbound_added.sas.extend(with_direction(Direction::Inbound));
        let mut switched = inbound_added.clone();
        switched.sas.retain(|sa| sa.direction == Direction::Inbound || !is_replaced(sa));
        switched.sas.extend(with_direction(Direction::Outbound));
        let old_inbound =
            config.sas.iter().filter(|sa| sa.direction == Direction::Inbound && is_replaced(sa));
        let retiring = old_inbound.map(SaEntry::name).collect();
        Self { inbound_added, switched, retiring }
    }
}

/// `config` without the SAs `names`.
#[must_use]
pub fn without(config: &Config, names: &[SaName]) -> Config {
    let mut config = config.clone();
    config.sas.retain(|sa| !names.contains(&sa.name()));
    config
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let sa = |protection: &str, direction: &str, spi: u32, rest: &str| {
            format!(
                "[[sa]]\nprotection = {protection:?}\ndirection = {direction:?}\nspi = {spi}\nkey_file = \"k{spi}\"\n{rest}\n"
            )
        };
        let text = [
            "manual_keying = \"lab\"\nloopbacks = [\"192.0.2.1\"]\n",
            "[[protection]]\nname = \"a\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n",
            "[[protection]]\nname = \"b\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.3\"\n",
            &sa("a", "inbound", 0x1001, "esn = true\nreplay_window = 64"),
            &sa("a", "outbound", 0x2001, "esn = true"),
            &sa("b", "inbound", 0x1002, ""),
            &sa("b", "outbound", 0x2002, ""),
        ];
        Config::parse(&text.concat(), "test").unwrap()
    }

    fn names(config: &Config) -> Vec<String> {
        config.sas.iter().map(|sa| sa.name().to_string()).collect()
    }

    fn entry(value: Value) -> SaEntry {
        let new = NewSa::from_json(value).unwrap();
        let config = config();
        let like = new.predecessor(&config).cloned();
        new.into_entry(like.as_ref()).unwrap().0
    }

    #[test]
    fn a_replacement_takes_over_what_it_does_not_say_but_never_key_or_spi() {
        let new = entry(json!({"protection": "a", "direction": "inbound", "spi": 0x1011, "key_id": "x"}));
        assert_eq!((new.esn, new.replay_window, new.spi), (true, Some(64), 0x1011));
        assert_eq!((new.key_file, new.key_id.as_deref()), (None, Some("x")));
        let new = entry(
            json!({"protection": "a", "direction": "inbound", "spi": "0x1011", "key_id": "x", "esn": false}),
        );
        assert!(!new.esn);
        let new =
            NewSa::from_json(json!({"protection": "a", "direction": "inbound", "key_id": "x"})).unwrap();
        let config = config();
        let problem = new.predecessor(&config).cloned();
        let new =
            NewSa::from_json(json!({"protection": "a", "direction": "inbound", "key_id": "x"})).unwrap();
        let problem = new.into_entry(problem.as_ref()).err().unwrap();
        assert!(problem.contains("spi"), "{problem}");
    }

    #[test]
    fn a_key_does_not_stay_among_the_fields() {
        let new =
            NewSa::from_json(json!({"protection": "c", "direction": "outbound", "spi": 300, "key": "00ff"}))
                .unwrap();
        let (entry, key) = new.into_entry(None).unwrap();
        assert_eq!(key.as_deref().map(String::as_str), Some("00ff"));
        assert!(!serde_json::to_string(&entry).unwrap().contains("00ff"));
        assert!(NewSa::from_json(json!({"key": "00", "key_file": "f"})).is_err());
        assert!(NewSa::from_json(json!({"key": 7})).is_err());
        assert!(NewSa::from_json(json!([])).is_err());
    }

    #[test]
    fn a_replacement_is_that_of_its_group_and_leaves_the_others() {
        let mut config = config();
        let group = |name: &str| config::GroupEntry { name: name.into(), dscp: vec![wire::Dscp::EF] };
        config.protections[0].groups = vec![group("voice")];
        let voice = config.sas.clone().into_iter().filter(|sa| sa.protection == "a").map(|sa| SaEntry {
            spi: sa.spi + 0x100,
            group: Some("voice".into()),
            key_file: sa.key_file.map(|file| file + "-voice"),
            esn: false,
            replay_window: None,
            ..sa
        });
        config.sas.extend(voice.collect::<Vec<_>>());
        let entry = |value: Value| {
            let new = NewSa::from_json(value).unwrap();
            let like = new.predecessor(&config).cloned();
            new.into_entry(like.as_ref()).unwrap().0
        };
        let of_voice = |direction: &str, spi: u32| {
            entry(
                json!({"protection": "a", "group": "voice", "direction": direction, "spi": spi, "key_id": "x"}),
            )
        };
        let new = [of_voice("inbound", 0x1111), of_voice("outbound", 0x2111)];
        assert!(new.iter().all(|sa| !sa.esn), "as in the group's own");
        let plan = Replacement::of(&config, &new);
        let retiring: Vec<_> = plan.retiring.iter().map(ToString::to_string).collect();
        assert_eq!(retiring, ["inbound 0x00001101"]);
        let outbound = names(&plan.switched).into_iter().filter(|name| name.starts_with("outbound"));
        assert_eq!(
            outbound.collect::<Vec<_>>(),
            ["outbound 0x00002001", "outbound 0x00002002", "outbound 0x00002111"]
        );
        let default =
            entry(json!({"protection": "a", "direction": "outbound", "spi": 0x2011, "key_id": "y"}));
        assert!(default.esn && default.group.is_none(), "as in the default group's");
        let outbound = names(&Replacement::of(&config, &[default]).switched);
        assert!(outbound.contains(&"outbound 0x00002101".into()), "{outbound:?}");
        assert!(!outbound.contains(&"outbound 0x00002001".into()), "{outbound:?}");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let new =
            NewSa::from_json(json!({"protection": "a", "direction": "inbound", "spi": 300, "colour": 1}))
                .unwrap();
        let problem = new.into_entry(None).err().unwrap();
        assert!(problem.contains("colour"), "{problem}");
    }

    #[test]
    fn a_pair_is_replaced_inbound_first_then_outbound_then_the_old_inbound_goes() {
        let new = [
            entry(json!({"protection": "a", "direction": "outbound", "spi": 0x2011, "key_id": "y"})),
            entry(json!({"protection": "a", "direction": "inbound", "spi": 0x1011, "key_id": "x"})),
        ];
        let plan = Replacement::of(&config(), &new);
        let with_inbound = [
            "inbound 0x00001001",
            "outbound 0x00002001",
            "inbound 0x00001002",
            "outbound 0x00002002",
            "inbound 0x00001011",
        ];
        assert_eq!(names(&plan.inbound_added), with_inbound);
        let switched = [
            "inbound 0x00001001",
            "inbound 0x00001002",
            "outbound 0x00002002",
            "inbound 0x00001011",
            "outbound 0x00002011",
        ];
        assert_eq!(names(&plan.switched), switched);
        assert_eq!(plan.retiring, ["inbound 0x00001001".parse().unwrap()]);
        let rest = without(&plan.switched, &plan.retiring);
        assert!(!names(&rest).contains(&"inbound 0x00001001".to_owned()) && rest.sas.len() == 4);
    }

    #[test]
    fn one_direction_leaves_the_other_alone() {
        let new = [entry(json!({"protection": "b", "direction": "outbound", "spi": 0x2012, "key_id": "y"}))];
        let plan = Replacement::of(&config(), &new);
        assert_eq!(plan.inbound_added, config());
        assert_eq!(plan.retiring, []);
        assert_eq!(plan.switched.sas.len(), 4);
        assert!(plan.switched.sa("outbound 0x00002002".parse().unwrap()).is_none());
    }
}
