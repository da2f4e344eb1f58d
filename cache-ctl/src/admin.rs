//! The admin port of a cluster's node: a question out, its answer in, as JSON over HTTP.
//!
//! An answer is kept whole, for `--json`, and read as far as a table shows it (`model.rs`).

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

pub mod model;

/// The port of an address that names none: where a node is administered that serves clients at
/// memcached's port.
pub const PORT_DEFAULT: u16 = 11311;
/// The longest answer: the map of a cluster of 16,384 shards has some megabytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why a node gave no answer, or another than was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody can be reached at that address, or the connection failed.
    #[error("cannot ask {node}: nobody answers at its admin port")]
    Unreachable {
        /// The address.
        node: String,
        /// What went wrong.
        #[source]
        source: ureq::Error,
    },
    /// It let too much time pass.
    #[error("{node} does not answer within {} s", timeout.as_secs_f64())]
    Timeout {
        /// The address.
        node: String,
        /// How long it may take.
        timeout: Duration,
    },
    /// It does not do what it is asked for, and says why.
    #[error("{reason}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// Its words.
        reason: String,
    },
    /// It answers something that is no answer to the question.
    #[error("{node} answers with something else: it is no admin port, or that of another version")]
    Unexpected {
        /// The address.
        node: String,
        /// What is wrong with it.
        #[source]
        source: Option<serde_json::Error>,
    },
}

/// A node's admin port.
#[derive(Debug)]
pub struct Admin {
    agent: Agent,
    node: String,
    timeout: Duration,
}

/// What a node said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said<T> {
    /// As it came.
    pub json: Value,
    /// What is shown of it.
    pub read: T,
}

impl Admin {
    /// The admin port at `node`: HOST:PORT, or HOST. Nothing is asked yet. `timeout` is how long an answer
    /// may take.
    pub fn at(node: &str, timeout: Duration) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).proxy(None);
        let config = config.timeout_global(Some(timeout));
        Self { agent: config.build().new_agent(), node: with_port(node), timeout }
    }

    /// Asks for `page`, a path with its query.
    ///
    /// # Errors
    ///
    /// When there is no answer, or another.
    pub fn get<T: DeserializeOwned>(&self, page: &str) -> Result<Said<T>, AdminError> {
        self.answer(self.agent.get(self.url(page)).call())
    }

    /// Asks `page` for a change.
    ///
    /// # Errors
    ///
    /// When there is no answer, or another.
    pub fn post<T: DeserializeOwned>(
        &self,
        page: &str,
        request: &impl Serialize,
    ) -> Result<Said<T>, AdminError> {
        self.answer(self.agent.post(self.url(page)).send_json(request))
    }

    fn url(&self, page: &str) -> String {
        format!("http://{}{page}", self.node)
    }

    fn answer<T: DeserializeOwned>(
        &self,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<Said<T>, AdminError> {
        let mut response = response.map_err(|error| self.failure(error))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.failure(error))?;
        let json: Value = serde_json::from_slice(&body).map_err(|error| self.unexpected(error))?;
        if status != StatusCode::OK {
            return Err(match json["error"].as_str() {
                Some(reason) => {
                    AdminError::Refused { status: status.as_u16(), reason: reason.to_owned() }
                }
                None => AdminError::Unexpected { node: self.node.clone(), source: None },
            });
        }
        let read = T::deserialize(&json).map_err(|error| self.unexpected(error))?;
        Ok(Said { json, read })
    }

    fn failure(&self, error: ureq::Error) -> AdminError {
        let node = self.node.clone();
        match error {
            ureq::Error::Timeout(_) => AdminError::Timeout { node, timeout: self.timeout },
            source => AdminError::Unreachable { node, source },
        }
    }

    fn unexpected(&self, error: serde_json::Error) -> AdminError {
        AdminError::Unexpected { node: self.node.clone(), source: Some(error) }
    }
}

/// `node` with the usual port where it names none. A bare IPv6 address has colons and no brackets.
fn with_port(node: &str) -> String {
    let is_bare_v6 = node.parse::<std::net::Ipv6Addr>().is_ok();
    let names_a_port =
        !is_bare_v6 && node.rsplit_once(':').is_some_and(|(_, end)| !end.ends_with(']'));
    match (is_bare_v6, names_a_port) {
        (true, _) => format!("[{node}]:{PORT_DEFAULT}"),
        (false, true) => node.to_owned(),
        (false, false) => format!("{node}:{PORT_DEFAULT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_the_usual_one_unless_named() {
        for (node, expected) in [
            ("cache-1", "cache-1:11311"),
            ("cache-1:7", "cache-1:7"),
            ("10.0.0.1", "10.0.0.1:11311"),
            ("::1", "[::1]:11311"),
            ("[::1]", "[::1]:11311"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(with_port(node), expected);
        }
    }
}
