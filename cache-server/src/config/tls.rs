//! TLS to clients: `-Z` and the `ssl_*` options of `-o`, in memcached's spelling.
//!
//! What a value means to memcached is kept where the option is kept, so that `stats settings` can say
//! it back: a verification mode is OpenSSL's sum of bits there, a key format its constant.

use std::fmt;
use std::path::PathBuf;

/// How much of an answer is encrypted at a time when `ssl_wbuf_size` is not given: one full record.
pub const OUTPUT_BYTES_DEFAULT: usize = 16 << 10;

/// What `-Z` and `-o ssl_*` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain in PEM, the server's own first (`ssl_chain_cert`).
    pub chain: Option<PathBuf>,
    /// Private key (`ssl_key`); none where it stands in the chain's file.
    pub key: Option<PathBuf>,
    /// How the key is written down (`ssl_keyformat`).
    pub key_format: KeyFormat,
    /// Whether clients are asked for certificates (`ssl_verify_mode`).
    pub verify: VerifyMode,
    /// Whose certificates clients may have, in PEM (`ssl_ca_cert`).
    pub authorities: Option<PathBuf>,
    /// Cipher suites of TLS 1.2, as OpenSSL lists them (`ssl_ciphers`).
    pub ciphers: Option<String>,
    /// How much of an answer is encrypted at a time, in bytes (`ssl_wbuf_size`, there in KiB).
    pub output_bytes: usize,
    /// Whether a client may resume an earlier session (`ssl_session_cache`).
    pub resumes_sessions: bool,
    /// Encryption by the kernel was asked for (`ssl_kernel_tls`); it is not done.
    pub kernel_tls: bool,
    /// The oldest version that was asked for (`ssl_min_version`).
    pub version_min: TlsVersion,
}

impl Default for TlsConfig {
    /// memcached's defaults, of which only the certificate is missing.
    fn default() -> Self {
        Self {
            chain: None,
            key: None,
            key_format: KeyFormat::Pem,
            verify: VerifyMode::None,
            authorities: None,
            ciphers: None,
            output_bytes: OUTPUT_BYTES_DEFAULT,
            resumes_sessions: false,
            kernel_tls: false,
            version_min: TlsVersion::V1_2,
        }
    }
}

/// How a private key is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// Base64 between lines that say what it is.
    Pem,
    /// The bytes themselves.
    Der,
}

impl KeyFormat {
    /// The format that OpenSSL knows by `number`.
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Pem),
            2 => Some(Self::Der),
            _ => None,
        }
    }

    /// OpenSSL's number: `SSL_FILETYPE_PEM`, `SSL_FILETYPE_ASN1`.
    pub fn number(self) -> i32 {
        match self {
            Self::Pem => 1,
            Self::Der => 2,
        }
    }
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyMode {
    /// They are not.
    None,
    /// They are, and may have none; one that is shown must be good.
    Request,
    /// They are, and must have one.
    Require,
    /// The same; memcached would not ask again in a renegotiation, which neither has.
    Once,
}

impl VerifyMode {
    /// What `ssl_verify_mode=number` asks for.
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Request),
            2 => Some(Self::Require),
            3 => Some(Self::Once),
            _ => None,
        }
    }

    /// The sum of OpenSSL's bits, which memcached shows: `SSL_VERIFY_PEER` is 1,
    /// `SSL_VERIFY_FAIL_IF_NO_PEER_CERT` 2, `SSL_VERIFY_CLIENT_ONCE` 4.
    pub fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Request => 1,
            Self::Require => 3,
            Self::Once => 7,
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0, which is not spoken here.
    V1_0,
    /// TLS 1.1, which is not spoken here.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl TlsVersion {
    /// The version that `ssl_min_version=number` names.
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::V1_0),
            1 => Some(Self::V1_1),
            2 => Some(Self::V1_2),
            3 => Some(Self::V1_3),
            _ => None,
        }
    }

    /// The oldest version that is accepted where this one was asked for.
    pub fn spoken(self) -> Self {
        self.max(Self::V1_2)
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_0 => "tlsv1.0",
            Self::V1_1 => "tlsv1.1",
            Self::V1_2 => "tlsv1.2",
            Self::V1_3 => "tlsv1.3",
        })
    }
}

/// How a listening address is protected: memcached's prefixes of `-l`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// As `-Z` and `ssl_verify_mode` say: plain without `-Z`.
    #[default]
    Usual,
    /// Plain beside addresses with TLS (`notls:`).
    Plain,
    /// TLS without a client's certificate (`btls:`).
    Basic,
    /// TLS with a client's certificate (`mtls:`).
    Mutual,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_memcached() {
        let bits = (0..=4).map(|number| VerifyMode::from_number(number).map(VerifyMode::bits));
        assert_eq!(bits.collect::<Vec<_>>(), [Some(0), Some(1), Some(3), Some(7), None]);
        for number in [1, 2] {
            assert_eq!(KeyFormat::from_number(number).map(KeyFormat::number), Some(number));
        }
        assert_eq!(KeyFormat::from_number(3), None);
        assert_eq!(TlsVersion::from_number(4), None);
    }

    #[test]
    fn old_versions_are_answered_with_the_oldest_that_is_spoken() {
        let spoken = (0..4).map(|number| TlsVersion::from_number(number).unwrap().spoken());
        let spoken: Vec<_> = spoken.map(|version| version.to_string()).collect();
        assert_eq!(spoken, ["tlsv1.2", "tlsv1.2", "tlsv1.2", "tlsv1.3"]);
    }
}
