//! The `ssl_*` options of `-o` into a [`TlsConfig`].
//!
//! memcached takes them in any order with `-Z`, and without it keeps them for nothing; so does this.
//! What it says of a wrong one is said here in the same words, with the value that was wrong.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::config::{KeyFormat, TlsConfig, TlsVersion, VerifyMode};

/// The largest `ssl_wbuf_size`, in KiB: more than that of an answer is never waiting to be sent.
const OUTPUT_KIB_MAX: usize = 1024;

/// What `-o` said of TLS so far.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsOptions(TlsConfig);

impl TlsOptions {
    /// Takes the option `name`, if it is one of TLS; `None` if it is not.
    pub(super) fn take(&mut self, name: &str, value: Option<&str>) -> Option<Result<(), String>> {
        let tls = &mut self.0;
        let taken = match name {
            "ssl_chain_cert" => path(name, value).map(|path| tls.chain = Some(path)),
            "ssl_key" => path(name, value).map(|path| tls.key = Some(path)),
            "ssl_ca_cert" => path(name, value).map(|path| tls.authorities = Some(path)),
            "ssl_ciphers" => text(name, value).map(|list| tls.ciphers = Some(list.to_owned())),
            "ssl_verify_mode" => {
                choice(name, value, VerifyMode::from_number).map(|mode| tls.verify = mode)
            }
            "ssl_keyformat" => {
                choice(name, value, KeyFormat::from_number).map(|format| tls.key_format = format)
            }
            "ssl_min_version" => choice(name, value, TlsVersion::from_number)
                .map(|version| tls.version_min = version),
            "ssl_wbuf_size" => output_bytes(name, value).map(|bytes| tls.output_bytes = bytes),
            "ssl_session_cache" => {
                tls.resumes_sessions = true;
                Ok(())
            }
            "ssl_kernel_tls" => {
                tls.kernel_tls = true;
                Ok(())
            }
            _ => return None,
        };
        Some(taken)
    }

    /// All of them together.
    pub(super) fn into_config(self) -> TlsConfig {
        self.0
    }
}

fn text<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| format!("Missing {name} argument"))
}

fn path(name: &str, value: Option<&str>) -> Result<PathBuf, String> {
    text(name, value).map(|value| Path::new(value).to_owned())
}

fn number<N: std::str::FromStr<Err: Display>>(name: &str, value: &str) -> Result<N, String> {
    value
        .trim()
        .parse()
        .map_err(|error| format!("could not parse argument to {name}: {value:?}: {error}"))
}

fn choice<T>(
    name: &str,
    value: Option<&str>,
    of_number: fn(i32) -> Option<T>,
) -> Result<T, String> {
    let value = text(name, value)?;
    of_number(number(name, value)?)
        .ok_or_else(|| format!("Invalid {name}: {value}. Use help to see valid options."))
}

fn output_bytes(name: &str, value: Option<&str>) -> Result<usize, String> {
    let kib: usize = number(name, text(name, value)?)?;
    Ok(kib.clamp(1, OUTPUT_KIB_MAX) << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(options: &[(&str, Option<&str>)]) -> Result<TlsConfig, String> {
        let mut tls = TlsOptions::default();
        for (name, value) in options {
            tls.take(name, *value).expect("an option of TLS")?;
        }
        Ok(tls.into_config())
    }

    #[test]
    fn every_option_is_taken() {
        let tls = taken(&[
            ("ssl_chain_cert", Some("chain.pem")),
            ("ssl_key", Some("key.der")),
            ("ssl_keyformat", Some("2")),
            ("ssl_verify_mode", Some("1")),
            ("ssl_ca_cert", Some("ca.pem")),
            ("ssl_ciphers", Some("ECDHE+AESGCM")),
            ("ssl_wbuf_size", Some("64")),
            ("ssl_session_cache", None),
            ("ssl_kernel_tls", None),
            ("ssl_min_version", Some("3")),
        ]);
        let expected = TlsConfig {
            chain: Some("chain.pem".into()),
            key: Some("key.der".into()),
            key_format: KeyFormat::Der,
            verify: VerifyMode::Request,
            authorities: Some("ca.pem".into()),
            ciphers: Some("ECDHE+AESGCM".to_owned()),
            output_bytes: 64 << 10,
            resumes_sessions: true,
            kernel_tls: true,
            version_min: TlsVersion::V1_3,
        };
        assert_eq!(tls, Ok(expected));
    }

    #[test]
    fn wrong_values_are_refused_as_memcached_words_it() {
        for (name, value, reason) in [
            ("ssl_chain_cert", None, "Missing ssl_chain_cert argument"),
            ("ssl_verify_mode", Some("x"), "could not parse argument to ssl_verify_mode"),
            ("ssl_verify_mode", Some("4"), "Invalid ssl_verify_mode"),
            ("ssl_min_version", Some("-1"), "Invalid ssl_min_version"),
            ("ssl_wbuf_size", Some("-1"), "could not parse argument to ssl_wbuf_size"),
        ] {
            let refusal = taken(&[(name, value)]).unwrap_err();
            assert!(refusal.starts_with(reason), "{refusal}");
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_cut_to_what_does() {
        for (kib, bytes) in [("0", 1 << 10), ("999999999", 1 << 20)] {
            assert_eq!(taken(&[("ssl_wbuf_size", Some(kib))]).unwrap().output_bytes, bytes);
        }
    }

    #[test]
    fn options_of_others_are_left_to_them() {
        assert_eq!(TlsOptions::default().take("hashpower", Some("16")), None);
    }
}
