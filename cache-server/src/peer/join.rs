//! How a process becomes a node: it proves a one-time token, and is given an id and a certificate.
//!
//! ```text
//! joiner                                          a node of the cluster
//!   | -- TLS; the CA is the one that the token vouches for -> |
//!   | -- JoinRequest: the token's secret, a public key -----> |   the control plane spends the token
//!   | <- JoinAnswer: node id, CA, certificate --------------- |   and gives out an id
//! ```
//!
//! The joiner's key stays with it. The secret is sent only to whom the fingerprint in the token vouches
//! for; without a fingerprint only on a plain connection, which is one on the loopback.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cluster::{ClusterId, NodeId};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::peer::HANDSHAKE_DEADLINE;
use crate::peer::certificates::{CertificateError, Fingerprint, PublicKey};
use crate::peer::connection::{ConnectionError, PeerConnection};

/// How long a joiner waits for its answer: the control plane has to agree, and may be choosing a leader.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// What admits one process to the cluster, once: `<secret>.<fingerprint of the CA>`, each 32 hexadecimal
/// digits; `<secret>` alone where connections between nodes are plain.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: Secret,
    fingerprint: Option<Fingerprint>,
}

/// The part of a token that is kept from others.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret([u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// What the cluster knows of it: enough to recognise it, and nothing to join with.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        hash
    }
}

impl JoinToken {
    /// A new one, for the cluster whose CA has this fingerprint.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate(fingerprint: Option<Fingerprint>) -> Result<Self, CertificateError> {
        let mut secret = [0; 16];
        SystemRandom::new().fill(&mut secret).map_err(|_| CertificateError::Random)?;
        Ok(Self { secret: Secret(secret), fingerprint })
    }

    /// What proves it.
    pub fn secret(&self) -> Secret {
        self.secret
    }

    /// Whose certificates it vouches for.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// What the cluster map keeps of it; see [`Secret::hash`].
    pub fn hash(&self) -> [u8; 32] {
        self.secret.hash()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.secret.0))?;
        match self.fingerprint {
            Some(Fingerprint(bytes)) => write!(f, ".{:032x}", u128::from_be_bytes(bytes)),
            None => Ok(()),
        }
    }
}

/// A text that is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join token is 32 hexadecimal digits, or twice that with a dot between")]
pub struct JoinTokenError;

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let (secret, fingerprint) = match text.split_once('.') {
            Some((secret, fingerprint)) => (secret, Some(fingerprint)),
            None => (text, None),
        };
        let secret = Secret(digits(secret)?);
        let fingerprint = fingerprint.map(digits).transpose()?.map(Fingerprint);
        Ok(Self { secret, fingerprint })
    }
}

fn digits(text: &str) -> Result<[u8; 16], JoinTokenError> {
    let whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = whole.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    Ok(number.ok_or(JoinTokenError)?.to_be_bytes())
}

/// What a joiner asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// What proves the token.
    pub secret: Secret,
    /// What its certificate is to be for.
    pub public_key: [u8; 32],
    /// Addresses, zone and the like; opaque here.
    pub details: Vec<u8>,
}

impl JoinRequest {
    /// The key that is to be certified.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.public_key)
    }
}

/// What a joiner is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// It is a node now.
    Admitted {
        /// Of this cluster.
        cluster: ClusterId,
        /// With this id.
        node: NodeId,
        /// Its certificate; `None` where connections between nodes are plain.
        certificates: Option<JoinCertificates>,
        /// Pool, map and the like; opaque here.
        details: Vec<u8>,
    },
    /// It is not, for a reason that is for people.
    Refused(String),
    /// The node at this peer address can tell.
    Elsewhere(String),
}

/// What makes a joiner known to the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCertificates {
    /// What `ca.pem` is to hold.
    pub authority_pem: String,
    /// What `node.pem` is to hold.
    pub node_pem: String,
}

/// Asks the node at the other end of a connection made by [`crate::peer::dial::connect_to_join`].
///
/// # Errors
///
/// When the connection fails. Whether the token was spent is then unknown.
pub async fn ask(
    connection: &mut PeerConnection,
    request: &JoinRequest,
) -> Result<JoinAnswer, ConnectionError> {
    connection.send(&encode(request)?).await?;
    decode(&connection.receive(ANSWER_DEADLINE).await?)
}

/// Reads what the process at the other end of a connection of [`crate::peer::handshake::Purpose::Join`]
/// asks for.
///
/// # Errors
///
/// When it asks for nothing, or nothing that makes sense.
pub async fn hear(connection: &mut PeerConnection) -> Result<JoinRequest, ConnectionError> {
    decode(&connection.receive(HANDSHAKE_DEADLINE).await?)
}

/// Answers it.
///
/// # Errors
///
/// When the connection fails.
pub async fn answer(
    connection: &mut PeerConnection,
    answer: &JoinAnswer,
) -> Result<(), ConnectionError> {
    connection.send(&encode(answer)?).await
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, ConnectionError> {
    postcard::to_stdvec(value).map_err(|_| ConnectionError::Malformed)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ConnectionError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(ConnectionError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_is_written() {
        for fingerprint in [None, Some(Fingerprint([0x0f; 16]))] {
            let token = JoinToken::generate(fingerprint).unwrap();
            let read: JoinToken = token.to_string().parse().unwrap();
            assert_eq!(read, token);
            assert_eq!(read.hash(), token.hash());
        }
    }

    #[test]
    fn two_tokens_differ() {
        let [a, b] = [(); 2].map(|()| JoinToken::generate(None).unwrap());
        assert_ne!(a.hash(), b.hash());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(good.parse::<JoinToken>().is_ok());
        for bad in [
            String::new(),
            good[1..].to_owned(),
            format!("{good}0"),
            format!("{good}."),
            format!("{good}.{}", &good[1..]),
            format!("{good}.{good}.{good}"),
            format!("+{}", &good[1..]),
            format!("{} ", &good[1..]),
            good.replace('0', "g"),
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(JoinTokenError), "{bad}");
        }
    }

    #[test]
    fn no_log_shows_a_token() {
        let token = JoinToken::generate(None).unwrap();
        let request = JoinRequest { secret: token.secret(), public_key: [0; 32], details: vec![] };
        for shown in [format!("{token:?}"), format!("{request:?}")] {
            assert!(!shown.contains(&token.to_string()), "{shown}");
            assert!(!shown.contains(&format!("{:?}", token.secret.0)), "{shown}");
        }
    }

    #[test]
    fn a_request_with_bytes_left_over_is_none() {
        let request =
            JoinRequest { secret: Secret([1; 16]), public_key: [2; 32], details: vec![3] };
        let mut bytes = encode(&request).unwrap();
        assert_eq!(decode::<JoinRequest>(&bytes).unwrap(), request);
        bytes.push(0);
        assert!(decode::<JoinRequest>(&bytes).is_err());
    }
}
