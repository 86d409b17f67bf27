// SPDX-License-Identifier: Apache-2.0
//! Which instance, and where its files lie.

use std::path::PathBuf;

use clap::Args;

/// The flags that say which instance is meant. A folder that is given is the instance's own: its name is not appended.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Name of the instance; several can run on one machine.
    #[arg(long, global = true, value_name = "NAME", default_value = "main", value_parser = instance_name)]
    pub instance: String,
    /// Folder of config.toml [default: /etc/greyhound/NAME].
    #[arg(long, global = true, value_name = "FOLDER")]
    pub config_dir: Option<PathBuf>,
    /// Folder of the sockets [default: /run/greyhound/NAME].
    #[arg(long, global = true, value_name = "FOLDER")]
    pub run_dir: Option<PathBuf>,
}

impl Place {
    /// Folder of `config.toml`.
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.folder(self.config_dir.as_ref(), "/etc/greyhound")
    }

    /// The file that is applied at the first start.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config_dir().join("config.toml")
    }

    /// Folder of the sockets.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder(self.run_dir.as_ref(), "/run/greyhound")
    }

    /// The socket of the API.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir().join("control.sock")
    }

    /// The socket of the dataplane.
    #[must_use]
    pub fn dataplane_socket(&self) -> PathBuf {
        self.run_dir().join("dataplane.sock")
    }

    /// Folder of control's state: `control/` in `given`, by default in `/var/lib/greyhound/NAME`.
    #[must_use]
    pub fn state_dir(&self, given: Option<&PathBuf>) -> PathBuf {
        self.folder(given, "/var/lib/greyhound").join("control")
    }

    fn folder(&self, given: Option<&PathBuf>, base: &str) -> PathBuf {
        given.cloned().unwrap_or_else(|| PathBuf::from(base).join(&self.instance))
    }
}

fn instance_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) {
        return Err("use 1 to 32 letters, digits, '-' and '_'".into());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        place: Place,
    }

    fn place(flags: &[&str]) -> Result<Place, clap::Error> {
        Flags::try_parse_from([&["program"], flags].concat()).map(|flags| flags.place)
    }

    #[test]
    fn folders_carry_the_instance_unless_they_are_given() {
        let blue = place(&["--instance", "blue"]).unwrap();
        assert_eq!(blue.config_file(), PathBuf::from("/etc/greyhound/blue/config.toml"));
        assert_eq!(blue.control_socket(), PathBuf::from("/run/greyhound/blue/control.sock"));
        assert_eq!(blue.state_dir(None), PathBuf::from("/var/lib/greyhound/blue/control"));
        let given = place(&["--instance", "blue", "--run-dir", "/tmp/x"]).unwrap();
        assert_eq!(given.dataplane_socket(), PathBuf::from("/tmp/x/dataplane.sock"));
        assert_eq!(given.state_dir(Some(&"/tmp/y".into())), PathBuf::from("/tmp/y/control"));
    }

    #[test]
    fn a_name_that_would_leave_its_folder_is_refused() {
        for name in ["", "a/b", "..", "a b", &"x".repeat(33)] {
            assert!(place(&["--instance", name]).is_err(), "{name:?}");
        }
    }
}
