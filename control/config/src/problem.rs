// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a configuration, in sentences that name the item.

use core::fmt;

use crate::{Item, Kind};

/// Which entry of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// Its place among the entries of its kind.
    pub(crate) position: usize,
    pub(crate) field: Option<&'static str>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(crate) place: Option<Place>,
    item: String,
    text: String,
}

impl Problem {
    pub(crate) fn new(place: Option<Place>, item: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place, item: item.into(), text: text.into() }
    }

    /// The entry, as in "tunnel branch-7".
    #[must_use]
    pub fn item(&self) -> &str {
        &self.item
    }

    /// What is wrong with it and what would be right.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.item, self.text)
    }
}

/// Everything that is wrong; never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A sentence for each.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        self.0.iter().map(Problem::to_string).collect()
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub(crate) fn into_result(self) -> Result<(), Problems> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl core::error::Error for Problems {}

/// Where problems of one entry go.
pub(crate) struct Complaints<'a, T> {
    problems: &'a mut Problems,
    item: &'a T,
    position: usize,
}

impl<'a, T: Item> Complaints<'a, T> {
    pub(crate) fn about(problems: &'a mut Problems, item: &'a T, position: usize) -> Self {
        Self { problems, item, position }
    }

    /// Adds one about a field.
    pub(crate) fn field(&mut self, field: &'static str, text: impl fmt::Display) {
        let place = Place { kind: T::KIND, position: self.position, field: Some(field) };
        self.problems.add(Problem::new(Some(place), self.item.name(), format!("{field}: {text}")));
    }

    /// Adds one about the whole entry.
    pub(crate) fn whole(&mut self, text: impl fmt::Display) {
        let place = Place { kind: T::KIND, position: self.position, field: None };
        self.problems.add(Problem::new(Some(place), self.item.name(), text.to_string()));
    }
}
