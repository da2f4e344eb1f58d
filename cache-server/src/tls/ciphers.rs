//! OpenSSL's cipher lists, as far as they name what is spoken here.
//!
//! ```text
//! ECDHE-RSA-AES128-GCM-SHA256:ECDHE+CHACHA20:!aRSA
//! one suite                   all that are both  none of these, whatever else is said
//! ```
//!
//! A list concerns TLS 1.2. Of that six suites are spoken, all of them with forward secrecy (ECDHE)
//! and authenticated encryption; every other one that OpenSSL has a name for is unknown here. The
//! order is kept. See `openssl-ciphers(1)`.

use rustls::{CipherSuite, SupportedCipherSuite};

/// A suite, by OpenSSL's name and by what its groups are called.
struct Named {
    suite: CipherSuite,
    name: &'static str,
    groups: &'static [&'static str],
}

/// What every suite belongs to.
const GROUPS_OF_ALL: &[&str] =
    &["ALL", "COMPLEMENTOFALL", "DEFAULT", "HIGH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2"];

const SUITES: &[Named] = &[
    Named {
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        groups: &["ECDSA", "aECDSA", "AES", "AESGCM", "AES256", "SHA384"],
    },
    Named {
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        groups: &["ECDSA", "aECDSA", "AES", "AESGCM", "AES128", "SHA256"],
    },
    Named {
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        groups: &["ECDSA", "aECDSA", "CHACHA20"],
    },
    Named {
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        groups: &["RSA", "aRSA", "AES", "AESGCM", "AES256", "SHA384"],
    },
    Named {
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        groups: &["RSA", "aRSA", "AES", "AESGCM", "AES128", "SHA256"],
    },
    Named {
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        groups: &["RSA", "aRSA", "CHACHA20"],
    },
];

impl Named {
    /// Whether it is called `word`, or is of the group or groups that `word` names.
    fn is_meant_by(&self, word: &str) -> bool {
        let is_called = self.name == word || self.suite.as_str() == Some(word);
        let is_of = |group| GROUPS_OF_ALL.contains(&group) || self.groups.contains(&group);
        is_called || word.split('+').all(is_of)
    }
}

/// What a word of a list does.
enum Word<'a> {
    /// Adds what it names behind what is there.
    Add(&'a str),
    /// Takes what it names out for good (`!`), or until it is added again (`-`).
    Remove { name: &'a str, is_final: bool },
    /// Sorts what is there (`+name`, `@STRENGTH`, `@SECLEVEL=n`): all suites here are of one strength.
    Sort,
}

fn words(list: &str) -> impl Iterator<Item = Word<'_>> {
    let words = list.split([':', ',', ';', ' ']).filter(|word| !word.is_empty());
    words.map(|word| match word.split_at(1) {
        ("!", name) => Word::Remove { name, is_final: true },
        ("-", name) => Word::Remove { name, is_final: false },
        ("+" | "@", _) => Word::Sort,
        _ => Word::Add(word),
    })
}

/// What `list` makes of `suites`: those of TLS 1.2 that it names, in its order, and all of TLS 1.3
/// before them. `None` when it names none of the former.
pub(super) fn chosen(
    list: &str,
    suites: &[SupportedCipherSuite],
) -> Option<Vec<SupportedCipherSuite>> {
    let mut names: Vec<&Named> = Vec::new();
    let mut barred: Vec<&str> = Vec::new();
    for word in words(list) {
        match word {
            Word::Add(word) => {
                let is_new = |named: &&Named| {
                    named.is_meant_by(word)
                        && !barred.iter().any(|barred| named.is_meant_by(barred))
                        && !names.iter().any(|known| known.suite == named.suite)
                };
                let added: Vec<&Named> = SUITES.iter().filter(is_new).collect();
                names.extend(added);
            }
            Word::Remove { name, is_final } => {
                names.retain(|named| !named.is_meant_by(name));
                if is_final {
                    barred.push(name);
                }
            }
            Word::Sort => {}
        }
    }
    let newest = suites.iter().filter(|suite| suite.tls13().is_some());
    let older = names.iter().filter_map(|named| {
        suites.iter().find(|suite| suite.tls13().is_none() && suite.suite() == named.suite)
    });
    let older: Vec<_> = older.copied().collect();
    (!older.is_empty()).then(|| newest.copied().chain(older).collect())
}

/// The words of `list` that add suites none of which is known here.
pub(super) fn unknown_names(list: &str) -> impl Iterator<Item = &str> {
    words(list).filter_map(|word| match word {
        Word::Add(name) if !SUITES.iter().any(|named| named.is_meant_by(name)) => Some(name),
        Word::Add(_) | Word::Remove { .. } | Word::Sort => None,
    })
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::ALL_CIPHER_SUITES;

    use super::*;

    /// What `list` chooses of TLS 1.2, by OpenSSL's names.
    fn older(list: &str) -> Vec<&'static str> {
        let chosen = chosen(list, ALL_CIPHER_SUITES).unwrap_or_default();
        let older = chosen.iter().filter(|suite| suite.tls13().is_none());
        let name = |suite: &SupportedCipherSuite| {
            SUITES.iter().find(|named| named.suite == suite.suite()).unwrap().name
        };
        older.map(name).collect()
    }

    #[test]
    fn every_suite_of_tls_1_2_has_its_name() {
        assert_eq!(older("ALL").len(), SUITES.len());
        let of_rustls = ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_none());
        assert_eq!(of_rustls.count(), SUITES.len());
    }

    #[test]
    fn names_choose_in_their_order() {
        assert_eq!(
            older("ECDHE-RSA-CHACHA20-POLY1305:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            ["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"]
        );
    }

    #[test]
    fn groups_are_added_and_taken_out() {
        assert_eq!(older("ECDHE+AES128:!aRSA"), ["ECDHE-ECDSA-AES128-GCM-SHA256"]);
        assert_eq!(older("HIGH:!aNULL:!MD5").len(), 6);
        assert_eq!(older("EECDH+CHACHA20:-ECDSA"), ["ECDHE-RSA-CHACHA20-POLY1305"]);
        assert_eq!(older("!RSA:ALL:@STRENGTH").len(), 3, "what is barred does not come back");
    }

    #[test]
    fn list_of_unknown_names_chooses_nothing_and_others_are_left_out() {
        assert!(chosen("RC4-MD5:DHE-RSA-AES128-SHA", ALL_CIPHER_SUITES).is_none());
        assert_eq!(older("AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256").len(), 1);
        let unknown: Vec<_> = unknown_names("AES128-SHA:ALL:!MD5:@STRENGTH").collect();
        assert_eq!(unknown, ["AES128-SHA"]);
    }

    #[test]
    fn tls_1_3_is_not_chosen_from() {
        let chosen = chosen("ECDHE-RSA-AES128-GCM-SHA256", ALL_CIPHER_SUITES).unwrap();
        assert_eq!(chosen.iter().filter(|suite| suite.tls13().is_some()).count(), 3);
    }
}
