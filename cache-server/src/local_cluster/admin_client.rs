//! What is asked of a node's admin port.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use ureq::{Agent, Body};

use super::local;
use crate::admin::model::{Failure, Status, Token, TokenRequest};

/// A node is on this machine; one that takes longer is asked again.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// A token is agreed on by the control plane.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);
/// A token is for the node that is started next.
const TOKEN_TTL_S: u32 = 120;

#[derive(Debug)]
pub(super) struct AdminClient(Agent);

impl AdminClient {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder().http_status_as_error(false).proxy(None);
        Self(config.build().new_agent())
    }

    /// How the cluster is, as the node with the admin port `port` sees it.
    pub(super) fn status(&self, port: u16) -> anyhow::Result<Status> {
        let request = self.0.get(format!("http://{}/cluster/status", local(port)));
        let request = request.config().timeout_global(Some(STATUS_TIMEOUT)).build();
        read(request.call()?)
    }

    /// What lets one node join.
    pub(super) fn token(&self, port: u16) -> anyhow::Result<Token> {
        let request = self.0.post(format!("http://{}/cluster/token", local(port)));
        let request = request.config().timeout_global(Some(TOKEN_TIMEOUT)).build();
        read(request.send_json(TokenRequest { ttl_s: TOKEN_TTL_S })?)
    }
}

fn read<T: DeserializeOwned>(response: ureq::http::Response<Body>) -> anyhow::Result<T> {
    let status = response.status();
    let mut body = response.into_body();
    if status.is_success() {
        return body.read_json().context("the answer is not understood");
    }
    match body.read_json::<Failure>() {
        Ok(Failure { error }) => bail!("{error}"),
        Err(_) => bail!("the answer is {status}"),
    }
}
