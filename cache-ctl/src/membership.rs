//! `cache-ctl add`, `drain`, `undrain`, `remove` and `voters`: who is in the cluster, and as what.

use std::io::{self, Write};

use crate::admin::model::{
    Agreed, DrainRequest, RemoveRequest, Token, TokenRequest, VotersRequest,
};
use crate::admin::{Admin, AdminError, Said};

/// Has a token made that lets one node in within `ttl_s` seconds.
///
/// # Errors
///
/// When the cluster does not agree.
pub fn add(admin: &Admin, ttl_s: u32) -> Result<Said<Token>, AdminError> {
    admin.post("/cluster/token", &TokenRequest { ttl_s })
}

/// Has the shards of `node` be moved away.
///
/// # Errors
///
/// When the cluster does not agree.
pub fn drain(admin: &Admin, node: u32) -> Result<Said<Agreed>, AdminError> {
    admin.post("/cluster/drain", &DrainRequest { node })
}

/// Has `node` take its share again.
///
/// # Errors
///
/// When the cluster does not agree.
pub fn undrain(admin: &Admin, node: u32) -> Result<Said<Agreed>, AdminError> {
    admin.post("/cluster/undrain", &DrainRequest { node })
}

/// Strikes `node` from the cluster; with `force` whatever it holds.
///
/// # Errors
///
/// When the cluster does not agree.
pub fn remove(admin: &Admin, node: u32, force: bool) -> Result<Said<Agreed>, AdminError> {
    admin.post("/cluster/remove", &RemoveRequest { node, force })
}

/// Has `voters` vote in the control plane, and nobody else.
///
/// # Errors
///
/// When the cluster does not agree.
pub fn set_voters(admin: &Admin, voters: &[u32]) -> Result<Said<Agreed>, AdminError> {
    admin.post("/cluster/voters", &VotersRequest { voters })
}

/// Writes for a person how the token is used.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_token(mut out: impl Write, token: &Token, ttl_s: u32) -> io::Result<()> {
    let seeds = token.seeds.join(",");
    writeln!(out, "One node may join with this token within {ttl_s} s:\n\n{}\n", token.token)?;
    writeln!(out, "cache-server --cluster-dir DIR --join {seeds} --token-file FILE")
}
