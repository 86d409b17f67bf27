// SPDX-License-Identifier: Apache-2.0
//! Drop counters of a device under test: from control's Unix socket (`docs/api.md`), or from what a command prints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::shell;

/// How long control may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Packets dropped, by the name that the device counts them under.
pub type Counters = BTreeMap<String, u64>;

/// Where counters are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Control's Unix socket.
    Socket(PathBuf),
    /// A command for a shell, that prints JSON.
    Command(String),
}

impl Source {
    /// The counters as they stand.
    ///
    /// # Errors
    /// The device cannot be asked, or its answer is none that is understood; it says where it was read.
    pub fn read(&self) -> anyhow::Result<Counters> {
        match self {
            Self::Socket(path) => {
                let body = ask(path)
                    .with_context(|| format!("{}: is greyhound-control running?", path.display()))?;
                parse(&body).with_context(|| format!("{}: GET /v1/drops", path.display()))
            }
            Self::Command(command) => shell::run(command, shell::LIMIT)
                .and_then(|printed| parse(&printed))
                .with_context(|| format!("command {command:?}")),
        }
    }
}

fn ask(path: &Path) -> anyhow::Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, get_drops(path)).await });
    answer.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
}

async fn get_drops(path: &Path) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(path).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/v1/drops").header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
    let bytes = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    ensure!(status.is_success(), "answered {status}: {}", String::from_utf8_lossy(&bytes).trim());
    Ok(bytes)
}

/// An array of objects with `reason` and `packets` (alone or under `drops`), or one object of names and numbers.
fn parse(printed: &[u8]) -> anyhow::Result<Counters> {
    let printed: Value = serde_json::from_slice(printed).context("no JSON")?;
    let list = printed.get("drops").unwrap_or(&printed);
    let entry =
        |drop: &Value| Some((drop.get("reason")?.as_str()?.to_owned(), drop.get("packets")?.as_u64()?));
    match list {
        Value::Array(list) => list
            .iter()
            .map(entry)
            .collect::<Option<_>>()
            .context("an entry without \"reason\", a string, and \"packets\", a number"),
        Value::Object(counters) => counters
            .iter()
            .map(|(name, count)| Some((name.clone(), count.as_u64()?)))
            .collect::<Option<_>>()
            .context("a counter that is no number from 0"),
        _ => bail!("wants an array of objects with \"reason\" and \"packets\", or an object of numbers"),
    }
}

/// What was counted since `before`; what was not counted is left out.
#[must_use]
pub fn since(now: Counters, before: &Counters) -> Counters {
    let grown = |(name, count): (String, u64)| {
        let grown = count.saturating_sub(before.get(&name).copied().unwrap_or(0));
        (grown > 0).then_some((name, grown))
    };
    now.into_iter().filter_map(grown).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn counters(list: &[(&str, u64)]) -> Counters {
        list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// Control that gives one answer, whatever it is asked, and what it was asked.
    fn answer(answer: &str) -> (anyhow::Result<Counters>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let (mut stream, mut asked) = (listener.accept().unwrap().0, vec![0; 1024]);
                let bytes = stream.read(&mut asked).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(asked[..bytes].to_vec()).unwrap()
            });
            let read = Source::Socket(path).read();
            (read, asked.join().unwrap())
        })
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    #[test]
    fn control_is_asked_for_its_drops() {
        let body = r#"[{"reason":"bad_icv","packets":7,"workers":[7],"meaning":"…"}]"#;
        let (read, asked) = answer(&http("200 OK", body));
        assert_eq!(read.unwrap(), counters(&[("bad_icv", 7)]));
        assert!(asked.starts_with("GET /v1/drops HTTP/1.1\r\n"), "{asked}");
    }

    #[test]
    fn an_answer_that_is_none_is_an_error_that_says_so() {
        let cases = [
            (http("503 Service Unavailable", "{\"error\":\"not connected\"}"), "not connected"),
            (http("200 OK", "<html>"), "no JSON"),
            (http("200 OK", "3"), "an array"),
            (http("200 OK", "[{\"reason\":\"x\",\"packets\":-1}]"), "\"packets\""),
            ("no HTTP at all\r\n\r\n".to_owned(), "control.sock"),
            (http("200 OK", &" ".repeat(LONGEST_ANSWER + 1)), "limit"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", answer(&text).0.unwrap_err());
            assert!(error.contains(expected) && error.contains("control.sock"), "{expected}: {error}");
        }
        let error = format!("{:#}", Source::Socket("/nowhere/control.sock".into()).read().unwrap_err());
        assert!(error.contains("/nowhere/control.sock: is greyhound-control running?"), "{error}");
    }

    #[test]
    fn a_command_may_print_a_list_or_names_with_numbers() {
        let read = |text: &str| Source::Command(format!("printf '%s' '{text}'")).read();
        let expected = counters(&[("auth_failed", 2)]);
        assert_eq!(read(r#"{"auth_failed": 2}"#).unwrap(), expected);
        assert_eq!(read(r#"{"drops": [{"reason": "auth_failed", "packets": 2}]}"#).unwrap(), expected);
        assert_eq!(read("[]").unwrap(), Counters::new());
        assert!(read(r#"{"auth_failed": "2"}"#).is_err());
        let error = format!("{:#}", Source::Command("echo lost >&2; exit 3".into()).read().unwrap_err());
        assert!(error.contains("exit status: 3") && error.contains("lost"), "{error}");
    }

    #[test]
    fn only_what_has_grown_is_left() {
        let (now, before) = (counters(&[("a", 5), ("b", 3), ("c", 1)]), counters(&[("a", 2), ("b", 3)]));
        assert_eq!(since(now, &before), counters(&[("a", 3), ("c", 1)]));
    }
}
