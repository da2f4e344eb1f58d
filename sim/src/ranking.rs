//! `Ranking`: how a simulated cache chooses who leaves: as a server can, or knowing what comes.

use std::fmt;
use std::str::FromStr;

use eviction::{Kind, UnknownPolicy};

/// Who leaves when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ranking {
    /// As a policy of the server says.
    Online(Kind),
    /// Who is asked for again last, or never: the optimum, which needs to know the future. See
    /// [`crate::belady`].
    Min,
}

impl Ranking {
    /// The name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online(kind) => kind.name(),
            Self::Min => "min",
        }
    }

    /// The server's policy, if it is one.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Online(kind) => Some(kind),
            Self::Min => None,
        }
    }
}

impl From<Kind> for Ranking {
    fn from(kind: Kind) -> Self {
        Self::Online(kind)
    }
}

impl PartialEq<Kind> for Ranking {
    fn eq(&self, kind: &Kind) -> bool {
        self.kind() == Some(*kind)
    }
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is neither a policy's nor the optimum's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, and min")]
pub struct UnknownRanking(#[from] UnknownPolicy);

impl FromStr for Ranking {
    type Err = UnknownRanking;

    fn from_str(name: &str) -> Result<Self, UnknownRanking> {
        match name.to_ascii_lowercase().as_str() {
            "min" | "opt" | "belady" => Ok(Self::Min),
            name => Ok(Self::Online(name.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ranking_answers_to_its_name() {
        for ranking in Kind::ALL.map(Ranking::from).into_iter().chain([Ranking::Min]) {
            assert_eq!(ranking.to_string().parse(), Ok(ranking));
        }
        assert_eq!("Belady".parse(), Ok(Ranking::Min));
        assert!("mru".parse::<Ranking>().unwrap_err().to_string().ends_with("wtinylfu, and min"));
    }
}
