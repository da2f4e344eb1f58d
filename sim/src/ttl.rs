//! `TtlRule`: what if every item lived as long as this, instead of as long as the log says.

use std::fmt;
use std::str::FromStr;

use crate::size::Decimal;

/// Seconds of the units a TTL may be given in.
const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)];

/// Which TTL an item gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlRule {
    /// The log's.
    #[default]
    Log,
    /// None: nothing expires.
    None,
    /// Every item this one, in seconds.
    Fixed(u32),
    /// The log's, times a factor; what has none gets none.
    Scaled(Decimal),
}

impl TtlRule {
    /// The TTL of an item that has `ttl_s` in the log; 0 is for ever.
    #[inline]
    pub fn apply(self, ttl_s: u32) -> u32 {
        match self {
            Self::Log => ttl_s,
            Self::None => 0,
            Self::Fixed(ttl_s) => ttl_s,
            Self::Scaled(_) if ttl_s == 0 => 0,
            Self::Scaled(factor) => {
                let scaled = factor.times(ttl_s.into(), 1);
                u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
            }
        }
    }
}

/// Why a text is no rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no TTL: log, none, seconds (300), a time (5m, 12h, 7d), or a factor (x0.5)")]
pub struct TtlRuleError(String);

impl FromStr for TtlRule {
    type Err = TtlRuleError;

    fn from_str(text: &str) -> Result<Self, TtlRuleError> {
        let rule = match text {
            "log" => Some(Self::Log),
            "none" => Some(Self::None),
            _ => match text.strip_prefix('x') {
                Some(factor) => {
                    Decimal::read(factor).filter(|factor| !factor.is_zero()).map(Self::Scaled)
                }
                None => seconds(text).map(Self::Fixed),
            },
        };
        rule.ok_or_else(|| TtlRuleError(text.into()))
    }
}

/// `300`, `5m`, `1.5h` in seconds, at least one.
pub(crate) fn seconds(text: &str) -> Option<u32> {
    let (number, unit_s) = UNITS
        .into_iter()
        .find_map(|(unit, unit_s)| Some((text.strip_suffix(unit)?, unit_s)))
        .unwrap_or((text, 1));
    let seconds = Decimal::read(number)?.times(unit_s, 1);
    u32::try_from(seconds).ok().filter(|&seconds| seconds > 0)
}

impl fmt::Display for TtlRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.pad("log"),
            Self::None => f.pad("none"),
            Self::Fixed(ttl_s) => write!(f, "{ttl_s}"),
            Self::Scaled(factor) => write!(f, "x{factor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> TtlRule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_read_as_a_person_writes_them() {
        assert_eq!(rule("log"), TtlRule::Log);
        assert_eq!(rule("none"), TtlRule::None);
        assert_eq!(rule("300"), TtlRule::Fixed(300));
        assert_eq!(rule("5m"), TtlRule::Fixed(300));
        assert_eq!(rule("1.5h"), TtlRule::Fixed(5400));
        assert_eq!(rule("x0.50").to_string(), "x0.50");
        for text in ["", "x", "x0", "0", "-5", "5y", "0.2", "xx2", "m", "99999999999", "."] {
            assert!(text.parse::<TtlRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn rules_apply_to_what_expires_and_a_fixed_one_to_all() {
        assert_eq!([0, 60].map(|ttl_s| rule("log").apply(ttl_s)), [0, 60]);
        assert_eq!([0, 60].map(|ttl_s| rule("none").apply(ttl_s)), [0, 0]);
        assert_eq!([0, 60].map(|ttl_s| rule("7").apply(ttl_s)), [7, 7]);
        assert_eq!([0, 60, 1].map(|ttl_s| rule("x0.5").apply(ttl_s)), [0, 30, 1]);
        assert_eq!(rule("x9999999").apply(u32::MAX), u32::MAX);
    }
}
