//! The seeds of `--join`: nodes that let a process in, or say which cluster they are of.

use std::collections::VecDeque;

use cluster::map::NewNode;
use cluster::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::bootstrap::{StartError, fresh_id};
use crate::config::TokenSource;
use crate::peer::certificates::{ClusterFiles, NodeKey};
use crate::peer::dial::connect_to_join;
use crate::peer::join::{self, JoinAnswer, JoinRequest, JoinToken};
use crate::peer::tls::Security;

/// Answers that send a joiner on to another node, at most: two that name each other would never end.
const ELSEWHERE_MAX: usize = 16;

/// What a joiner says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JoinDetails {
    pub(super) request: u64,
    pub(super) node: NewNode,
}

/// Asks one seed after the other to let `node` in; of which cluster it then is, and under which id. Its
/// certificate is written to `files` by then.
pub(super) async fn join(
    mut seeds: VecDeque<String>,
    token: &str,
    node: NewNode,
    files: &ClusterFiles,
    plaintext_anywhere: bool,
) -> Result<(ClusterId, NodeId), StartError> {
    let not_admitted = |why: &dyn ToString| StartError::NotAdmitted(why.to_string());
    let token: JoinToken = token.parse().map_err(|_| not_admitted(&"that is no join token"))?;
    let security = Security { tls: None, plaintext_anywhere };
    let key = NodeKey::generate()?;
    let details = JoinDetails { request: fresh_id(), node };
    let details = postcard::to_stdvec(&details).map_err(|error| not_admitted(&error))?;
    let request = JoinRequest { secret: token.secret(), public_key: key.public_key().0, details };
    let mut said = Vec::new();
    let mut sent_on = 0;
    while let Some(seed) = seeds.pop_front() {
        match ask(&seed, &token, &security, &request).await {
            Ok(JoinAnswer::Admitted { cluster, node, certificates, .. }) => {
                if let Some(certificates) = certificates {
                    files.save_node(&certificates.authority_pem, &certificates.node_pem, &key)?;
                }
                return Ok((cluster, node));
            }
            Ok(JoinAnswer::Refused(reason)) => said.push(format!("{seed}: {reason}")),
            Ok(JoinAnswer::Elsewhere(address)) => {
                said.push(format!("{seed}: ask {address}"));
                sent_on += 1;
                if sent_on <= ELSEWHERE_MAX {
                    seeds.push_back(address);
                }
            }
            Err(error) => said.push(format!("{seed}: {error}")),
        }
    }
    Err(not_admitted(&said.join("; ")))
}

async fn ask(
    seed: &str,
    token: &JoinToken,
    security: &Security,
    request: &JoinRequest,
) -> Result<JoinAnswer, String> {
    let connected = connect_to_join(seed, token, security).await;
    let (mut connection, _) = connected.map_err(|error| error.to_string())?;
    join::ask(&mut connection, request).await.map_err(|error| error.to_string())
}

/// Of which cluster the first seed is that says so. All are asked at once, and none for longer than a
/// handshake may take; `None` when none of them lives, or the token is not at hand any more.
pub(super) async fn cluster_of(
    seeds: Vec<String>,
    token: &TokenSource,
    plaintext_anywhere: bool,
) -> Option<ClusterId> {
    let token: JoinToken = token.read().ok()?.parse().ok()?;
    let mut asked = JoinSet::new();
    for seed in seeds {
        let token = token.clone();
        asked.spawn(async move {
            let security = Security { tls: None, plaintext_anywhere };
            connect_to_join(&seed, &token, &security).await.ok().map(|(_, found)| found.cluster)
        });
    }
    while let Some(said) = asked.join_next().await {
        if let Ok(Some(cluster)) = said {
            return Some(cluster);
        }
    }
    None
}
