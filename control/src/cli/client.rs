// SPDX-License-Identifier: Apache-2.0
//! The client's end of the API: one request for each connection to the Unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sysmem::LockedBytes;
use tokio::net::UnixStream;

use super::CliError;
use crate::failure::FailureBody;

/// Speaks to control.
pub(super) struct Client {
    socket: PathBuf,
}

/// What is sent.
pub(super) struct Body {
    bytes: Bytes,
    media_type: &'static str,
}

impl Body {
    pub(super) fn none() -> Self {
        Self { bytes: Bytes::new(), media_type: "application/json" }
    }

    /// A configuration.
    pub(super) fn text(text: String) -> Self {
        Self { bytes: text.into(), media_type: "application/toml" }
    }

    /// JSON with a key in it: the bytes stay in locked memory until they are sent.
    pub(super) fn secret(bytes: LockedBytes) -> Self {
        struct Owner(LockedBytes);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Self { bytes: Bytes::from_owner(Owner(bytes)), media_type: "application/json" }
    }
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.send("GET", path, Body::none()).await
    }

    /// As `get`, and takes the answer apart.
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        understand(self.get(path).await?)
    }

    pub(super) async fn get_text(&self, path: &str) -> Result<String, CliError> {
        let bytes = self.exchange("GET", path, Body::none(), "*/*").await?;
        String::from_utf8(bytes.to_vec()).map_err(|error| CliError::Failed(error.to_string()))
    }

    pub(super) async fn send(&self, method: &str, path: &str, body: Body) -> Result<Value, CliError> {
        let bytes = self.exchange(method, path, body, "application/json").await?;
        serde_json::from_slice(&bytes).map_err(|error| CliError::Failed(format!("control's answer: {error}")))
    }

    async fn exchange(&self, method: &str, path: &str, body: Body, accept: &str) -> Result<Bytes, CliError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let failed = |error: hyper::Error| self.unreachable(&error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, body.media_type)
            .body(Full::new(body.bytes))
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(failed)?.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> CliError {
        let path = self.socket.display();
        CliError::Unreachable(format!(
            "{path}: {error}; is greyhound-control running, with this --instance or --run-dir?"
        ))
    }
}

fn refused(status: StatusCode, body: &[u8]) -> CliError {
    let unreadable = |_| FailureBody { error: format!("control answered {status}"), details: Vec::new() };
    CliError::Refused(serde_json::from_slice(body).unwrap_or_else(unreadable))
}

/// Takes an answer apart.
pub(super) fn understand<T: DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    let explain = |error| {
        CliError::Failed(format!(
            "control's answer: {error}; are greyhound and greyhound-control of the same release?"
        ))
    };
    serde_json::from_value(answer).map_err(explain)
}
