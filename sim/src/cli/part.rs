//! Flags for one of several workers: which part of the log is its own, and where its figures go.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use crate::sampling::{Dealing, Part};

/// A worker's part.
#[derive(Debug, Args)]
pub struct PartArgs {
    /// Take one of several parts of the log's objects, as in 3/16; `merge` puts them together. Requests of
    /// other parts may come too, they are passed over
    #[arg(long, value_name = "I/N", requires = "save")]
    part: Option<PartName>,

    /// Nothing but the part comes: somebody else has dealt the requests out, by any hash of their keys, and
    /// none is passed over
    #[arg(long, requires = "part")]
    dealt: bool,

    /// Write the figures to a file, for `merge`; `-` is standard output, and nothing else is printed
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl PartArgs {
    /// What is played of what comes.
    pub(super) fn dealing(&self) -> Dealing {
        let part = self.part.map_or(Part::WHOLE, |PartName(part)| part);
        Dealing { part, is_dealt: self.dealt }
    }

    /// Where the figures go, if anywhere.
    pub(super) fn save(&self) -> Option<&Path> {
        self.save.as_deref()
    }
}

/// `3/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PartName(Part);

/// Why a text is no part.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write which part of how many, as in 3/16")]
struct NoPart;

impl FromStr for PartName {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        let (which, count) = text.split_once('/').ok_or(NoPart)?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| NoPart);
        let (which, count) = (number(which)?, number(count)?);
        let index = which.checked_sub(1).filter(|&index| index < count).ok_or(NoPart)?;
        Ok(Self(Part { index, count }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_from_one() {
        assert_eq!("1/1".parse(), Ok(PartName(Part::WHOLE)));
        assert_eq!("3/16".parse(), Ok(PartName(Part { index: 2, count: 16 })));
        for text in ["0/4", "5/4", "1/0", "3", "a/b", "-1/4"] {
            assert_eq!(text.parse::<PartName>(), Err(NoPart), "{text}");
        }
    }
}
