// SPDX-License-Identifier: Apache-2.0
//! Why a request was not done, for people and programs.

use serde::{Deserialize, Serialize};

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// Which kind of failure, for the status of the answer.
    pub kind: FailureKind,
    /// In one sentence.
    pub error: String,
    /// One by one: what is wrong, and what would be right.
    pub details: Vec<String>,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request cannot be read.
    Unreadable,
    /// What it names does not exist.
    NotFound,
    /// What it wants to make is there already.
    Exists,
    /// It would not make a valid configuration.
    Invalid,
    /// The dataplane refuses.
    Refused,
    /// The dataplane is not there.
    Unavailable,
    /// Files of control.
    Internal,
}

/// A failure as an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureBody {
    /// In one sentence.
    pub error: String,
    /// One by one.
    #[serde(default)]
    pub details: Vec<String>,
}

impl Failure {
    /// A failure without details.
    pub fn new(kind: FailureKind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), details: Vec::new() }
    }

    /// The configuration that would result is not valid.
    #[must_use]
    pub fn invalid(details: Vec<String>) -> Self {
        let error = "the configuration is not valid; nothing was changed".into();
        Self { kind: FailureKind::Invalid, error, details }
    }

    /// The dataplane refuses.
    pub fn refused(reason: impl Into<String>) -> Self {
        let error = "the dataplane refused; nothing was changed".into();
        Self { kind: FailureKind::Refused, error, details: vec![reason.into()] }
    }

    /// There is no dataplane to ask.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(FailureKind::Unavailable, "the dataplane is not connected; is greyhound-dataplane running?")
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self.kind {
            FailureKind::Unreadable => 400,
            FailureKind::NotFound => 404,
            FailureKind::Exists | FailureKind::Refused => 409,
            FailureKind::Invalid => 422,
            FailureKind::Internal => 500,
            FailureKind::Unavailable => 503,
        }
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> FailureBody {
        FailureBody { error: self.error.clone(), details: self.details.clone() }
    }
}
