//! What the admin port of a node says, read as far as tests ask.
//!
//! HTTP/1.1 by hand, one request a connection: a test of the server should not lean on the client that is
//! shipped with it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// How a node sees the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The id of who answers.
    pub node: u32,
    /// Whether nothing is amiss.
    pub is_healthy: bool,
    /// Who leads the control plane.
    pub leader: Option<u32>,
    /// Shards of the cluster.
    pub shards: u64,
    /// Of these, served by a primary.
    pub shards_serving: u64,
    /// Of these, with fewer copies than there should be.
    pub shards_short: u64,
    /// Ids of nodes that the answering one hears of, and how many shards each serves and holds.
    pub nodes: Vec<NodeShards>,
}

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeShards {
    /// Which.
    pub id: u32,
    /// Whether it is heard of.
    pub is_up: bool,
    /// Shards that it serves.
    pub primary: u64,
    /// Shards that it holds in sync.
    pub copies: u64,
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its shard.
    pub shard: u64,
    /// The id of who serves it.
    pub primary: Option<u32>,
    /// The ids of who holds it.
    pub in_sync: Vec<u32>,
}

/// Asks how the cluster is.
///
/// # Errors
/// When there is no answer, or none that can be read.
pub fn status(admin: SocketAddr) -> io::Result<Status> {
    let said = request(admin, "GET", "/cluster/status", None)?;
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let nodes = said["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let nodes = nodes.iter().filter_map(|node| {
        Some(NodeShards {
            id: id(&node["id"])?,
            is_up: node["up"].as_bool()?,
            primary: count(&node["shards_primary"]),
            copies: count(&node["shards_copies"]),
        })
    });
    Ok(Status {
        node: id(&said["node"]).ok_or_else(|| unexpected(&said))?,
        is_healthy: said["healthy"].as_bool().ok_or_else(|| unexpected(&said))?,
        leader: id(&said["raft"]["leader"]),
        shards: count(&said["shards"]["total"]),
        shards_serving: count(&said["shards"]["serving"]),
        shards_short: count(&said["shards"]["under_replicated"]),
        nodes: nodes.collect(),
    })
}

/// Asks where `key` is: letters, digits and what else needs no escape in a URL.
///
/// # Errors
/// When there is no answer, or none that can be read.
pub fn locate(admin: SocketAddr, key: &str) -> io::Result<Location> {
    let said = request(admin, "GET", &format!("/cluster/locate?key={key}"), None)?;
    let members = said["in_sync"].as_array().ok_or_else(|| unexpected(&said))?;
    Ok(Location {
        shard: said["shard"].as_u64().ok_or_else(|| unexpected(&said))?,
        primary: id(&said["primary"]),
        in_sync: members.iter().filter_map(id).collect(),
    })
}

/// Asks how many copies are being made or wait for it.
///
/// # Errors
/// When there is no answer, or none that can be read.
pub fn moves(admin: SocketAddr) -> io::Result<u64> {
    let said = request(admin, "GET", "/cluster/moves", None)?;
    let running = said["running"].as_array().ok_or_else(|| unexpected(&said))?;
    Ok(running.len() as u64 + said["queued"].as_u64().unwrap_or(0))
}

/// Has a token made that lets one node in.
///
/// # Errors
/// When there is none.
pub fn token(admin: SocketAddr) -> io::Result<String> {
    let said = request(admin, "POST", "/cluster/token", Some(&json!({ "ttl_s": 600 })))?;
    said["token"].as_str().map(str::to_owned).ok_or_else(|| unexpected(&said))
}

/// Has shards that cannot go on by themselves go on with what there is, or asks what that would be; which
/// copies those are.
///
/// # Errors
/// When that is refused.
pub fn recover(admin: SocketAddr, accept_data_loss: bool) -> io::Result<Vec<String>> {
    let request_body = json!({ "accept_data_loss": accept_data_loss });
    let said = request(admin, "POST", "/cluster/recover", Some(&request_body))?;
    let shards = said["shards"].as_array().ok_or_else(|| unexpected(&said))?;
    Ok(shards.iter().filter_map(|it| it["copy"].as_str().map(str::to_owned)).collect())
}

/// Has all shards be moved away from `node`.
///
/// # Errors
/// When the cluster does not agree.
pub fn drain(admin: SocketAddr, node: u32) -> io::Result<()> {
    request(admin, "POST", "/cluster/drain", Some(&json!({ "node": node }))).map(drop)
}

/// Strikes `node`, which holds nothing, from the cluster.
///
/// # Errors
/// When the cluster does not agree.
pub fn remove(admin: SocketAddr, node: u32) -> io::Result<()> {
    let body = json!({ "node": node, "force": false });
    request(admin, "POST", "/cluster/remove", Some(&body)).map(drop)
}

fn request(admin: SocketAddr, method: &str, page: &str, body: Option<&Value>) -> io::Result<Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = TcpStream::connect_timeout(&admin, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    let head = format!(
        "{method} {page} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).map_err(io::Error::other)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    match head.split(' ').nth(1) {
        Some("200") => serde_json::from_str(body).map_err(io::Error::other),
        _ => Err(io::Error::other(format!("{method} {page} at {admin}: {answer}"))),
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn unexpected(said: &Value) -> io::Error {
    io::Error::other(format!("that tells nothing: {said}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A node that gives one answer.
    fn node_that_says(said: Value) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).unwrap();
            let body = said.to_string();
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        });
        address
    }

    #[test]
    fn a_status_is_read_as_far_as_it_matters() {
        let said = json!({
            "cluster": "1f", "node": 2, "healthy": false, "raft": {"leader": 3, "term": 5},
            "shards": {"total": 64, "serving": 60, "under_replicated": 7, "without_primary": 4},
            "nodes": [{"id": 1, "up": true, "shards_primary": 20, "shards_copies": 40, "zone": ""}],
        });
        let status = status(node_that_says(said)).unwrap();
        assert_eq!((status.node, status.leader, status.is_healthy), (2, Some(3), false));
        assert_eq!((status.shards, status.shards_serving, status.shards_short), (64, 60, 7));
        let first = NodeShards { id: 1, is_up: true, primary: 20, copies: 40 };
        assert_eq!(status.nodes, [first]);
    }

    #[test]
    fn what_is_no_status_is_an_error() {
        assert!(status(node_that_says(json!({ "ok": true }))).is_err());
    }
}
