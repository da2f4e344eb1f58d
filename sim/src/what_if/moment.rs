//! `Moment`: when in a log something happens, as a person says it: after `12h`, or after `50%` of it.

use std::str::FromStr;

use super::Census;
use crate::replay::Request;
use crate::size::Size;
use crate::ttl::seconds;

/// A stretch of a log, from its beginning or from another moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Seconds of the log's time.
    Seconds(u32),
    /// A share of its requests.
    Share(crate::size::Share),
}

/// Why a text is no moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a time (90s, 5m, 12h, 7d) nor a share of the log's requests (50%)")]
pub struct MomentError(String);

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let refused = || MomentError(text.into());
        if text.ends_with('%') {
            return match text.parse() {
                Ok(Size::Share(share)) => Ok(Self::Share(share)),
                _ => Err(refused()),
            };
        }
        seconds(text).map(Self::Seconds).ok_or_else(refused)
    }
}

impl Moment {
    /// Whether the log is to be counted before.
    pub(super) fn is_share(self) -> bool {
        matches!(self, Self::Share(_))
    }

    /// A watch that tells when it has come.
    pub(super) fn watch(self, census: &Census) -> Watch {
        let after_requests = match self {
            Self::Seconds(_) => None,
            Self::Share(share) => Some(share.of(census.requests)),
        };
        let after_s = match self {
            Self::Seconds(after_s) => after_s,
            Self::Share(_) => 0,
        };
        Watch { after_s, after_requests, begins: None, seen: 0 }
    }
}

/// Waits for a moment.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    after_s: u32,
    after_requests: Option<u64>,
    /// The time of the first request it was shown.
    begins: Option<u32>,
    seen: u64,
}

impl Watch {
    /// Whether the moment is past at `request`, the next of the log. Once it is, it stays so.
    pub(super) fn is_past(&mut self, request: &Request) -> bool {
        let begins = *self.begins.get_or_insert(request.time_s);
        let seen = self.seen;
        self.seen += 1;
        match self.after_requests {
            Some(after) => seen >= after,
            None => request.time_s >= begins.saturating_add(self.after_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Access;

    fn first_past(moment: &str, times: &[u32]) -> Option<usize> {
        let census = Census { requests: times.len() as u64, ..Census::default() };
        let mut watch = moment.parse::<Moment>().unwrap().watch(&census);
        times.iter().position(|&time_s| watch.is_past(&Access::get(time_s, 1, 1).into()))
    }

    #[test]
    fn a_moment_is_a_time_since_the_beginning_or_a_share_of_the_requests() {
        let times = [100, 100, 130, 160, 220, 230];
        assert_eq!(first_past("1m", &times), Some(3));
        assert_eq!(first_past("60", &times), Some(3));
        assert_eq!(first_past("50%", &times), Some(3));
        assert_eq!(first_past("1h", &times), None);
        assert_eq!(first_past("100%", &times), None);
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "soon", "0%", "-5m", "%", "5x"] {
            assert_eq!(text.parse::<Moment>(), Err(MomentError(text.into())));
        }
    }
}
