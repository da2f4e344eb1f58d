//! When a certificate runs out, and how often somebody is told before it does.

use x509_parser::parse_x509_certificate;

const DAY_S: u64 = 86_400;
/// Days before the end on which it is told.
const TOLD_DAYS: [u64; 3] = [30, 7, 1];

/// What somebody has to hear of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It runs out in less than so many days.
    Within {
        /// How many.
        days: u64,
    },
    /// It has run out.
    Expired,
}

/// What was told of a certificate so far.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Of one that runs out then.
    expiry_unix_s: u64,
    told: Option<Notice>,
}

impl Notices {
    /// What is to be told now of the certificate that is in use: each thing once.
    pub(super) fn due(&mut self, expiry_unix_s: u64, now_unix_s: u64) -> Option<Notice> {
        if self.expiry_unix_s != expiry_unix_s {
            *self = Self { expiry_unix_s, told: None };
        }
        let left_s = expiry_unix_s.saturating_sub(now_unix_s);
        let within = TOLD_DAYS.iter().rev().find(|&&days| left_s < days * DAY_S);
        let notice = match within {
            _ if left_s == 0 => Notice::Expired,
            Some(&days) => Notice::Within { days },
            None => return None,
        };
        (self.told.replace(notice) != Some(notice)).then_some(notice)
    }
}

/// When a certificate in DER runs out; `None` where it cannot be read.
pub(super) fn expiry_unix_s(certificate: &[u8]) -> Option<u64> {
    let (_rest, certificate) = parse_x509_certificate(certificate).ok()?;
    // What ran out before 1970 has run out.
    Some(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_whichever_way_it_is_written() {
        for (year, month, day, unix_s) in [
            (1999, 12, 31, 946_598_400),
            (2028, 2, 29, 1_835_395_200),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            let read = expiry_unix_s(&certificate(year, month, day));
            assert_eq!(read, Some(unix_s), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let whole = certificate(2030, 1, 1);
        for len in 0..whole.len() {
            assert_eq!(expiry_unix_s(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(expiry_unix_s(&[0x30; 64]), None);
    }

    #[test]
    fn each_stage_is_told_once_and_again_of_another_certificate() {
        let mut notices = Notices::default();
        let end = 100 * DAY_S;
        let told: Vec<_> = (0..=102 * 24)
            .filter_map(|hour| Some((hour, notices.due(end, hour * 3600)?)))
            .collect();
        let within = |days| Notice::Within { days };
        assert_eq!(
            told,
            [
                (70 * 24 + 1, within(30)),
                (93 * 24 + 1, within(7)),
                (99 * 24 + 1, within(1)),
                (100 * 24, Notice::Expired),
            ]
        );
        assert_eq!(notices.due(end + DAY_S, end), Some(within(7)), "another, a whole day before");
        assert_eq!(notices.due(end + 90 * DAY_S, end), None, "renewed");
    }

    #[test]
    fn one_that_has_run_out_when_it_is_loaded_is_told_at_once() {
        assert_eq!(Notices::default().due(5, 6), Some(Notice::Expired));
    }
}
