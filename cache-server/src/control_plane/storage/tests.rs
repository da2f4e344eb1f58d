//! The file passes openraft's own suite, survives a kill at any moment, and refuses what is not its own.

use std::fs;
use std::path::PathBuf;

use cluster::map::{Addresses, NewNode, Role};
use cluster::pool::Pool;
use cluster::{ClusterId, NodeId};
use openraft::storage::RaftLogStorageExt;
use openraft::testing::{StoreBuilder, Suite, blank_ent, log_id, membership_ent};
use redb::{Database, TableDefinition};
use tempfile::TempDir;

use super::*;

const WHO: Identity = Identity { cluster: ClusterId(7), node: NodeId(1) };

fn path_in(directory: &TempDir) -> PathBuf {
    directory.path().join("raft.redb")
}

fn open(directory: &TempDir) -> Storage {
    Storage::open(&path_in(directory), WHO, Writing::Inline).unwrap()
}

fn created() -> (TempDir, Storage) {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::create(&path_in(&directory), WHO, Writing::Inline).unwrap();
    (directory, storage)
}

fn normal(index: u64) -> Entry {
    let payload = EntryPayload::Normal(vec![Command::AddToken {
        hash: [index.to_le_bytes()[0]; 32],
        expires_unix_ms: index,
    }]);
    Entry { log_id: log_id(1, 1, index), payload }
}

fn founding(index: u64) -> Entry {
    let node = NewNode {
        addresses: Addresses::default(),
        zone: "a".into(),
        weight: 100,
        role: Role::Data,
        version: "1".into(),
    };
    let command =
        Command::Found { cluster: WHO.cluster, pool: Pool::strict(), shard_count: 64, node };
    Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(vec![command]) }
}

async fn entries_of(storage: &Storage) -> Vec<u64> {
    let (mut log, _) = storage.halves();
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries.into_iter().map(|entry| entry.log_id.index).collect()
}

/// What a process leaves that is killed now: the file as it is, without a goodbye.
fn killed(directory: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(path_in(directory), path_in(&copy)).unwrap();
    copy
}

struct Builder(Writing);

impl StoreBuilder<Types, LogStore, Machine, (TempDir, Storage)> for Builder {
    async fn build(&self) -> Result<((TempDir, Storage), LogStore, Machine), StorageError<u64>> {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::create(&path_in(&directory), WHO, self.0).unwrap();
        let (log, machine) = storage.halves();
        Ok(((directory, storage), log, machine))
    }
}

#[test]
fn openrafts_suite_passes() {
    Suite::test_all(Builder(Writing::Thread)).unwrap();
    Suite::test_all(Builder(Writing::Inline)).unwrap();
}

#[tokio::test]
async fn all_that_was_acknowledged_is_there_after_a_kill() {
    for writing in [Writing::Inline, Writing::Thread] {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::create(&path_in(&directory), WHO, writing).unwrap();
        let (mut log, mut machine) = storage.halves();
        let membership = membership_ent::<Types>(1, 1, 1, vec![[1].into()]);
        let first = [blank_ent::<Types>(0, 0, 0), membership, founding(2), normal(3)];
        log.blocking_append(first.clone()).await.unwrap();
        machine.apply(first).await.unwrap();
        let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        log.save_committed(Some(log_id(1, 1, 4))).await.unwrap();
        log.blocking_append([normal(4), normal(5), normal(6)]).await.unwrap();
        log.purge(log_id(1, 1, 2)).await.unwrap();
        log.truncate(log_id(1, 1, 6)).await.unwrap();
        let vote = Vote::new(3, 2);
        log.save_vote(&vote).await.unwrap();

        let after = killed(&directory);
        let storage = open(&after);
        let (mut log, mut machine) = storage.halves();
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        assert_eq!(entries_of(&storage).await, [3, 4, 5]);
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1, 4)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(log_id(1, 1, 2)));
        let (applied, membership) = machine.applied_state().await.unwrap();
        assert_eq!(applied, Some(log_id(1, 1, 3)));
        assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [1]);
        let back = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(back.meta, snapshot.meta);
        assert_eq!(storage.watch().borrow().tokens.len(), 1);
    }
}

/// Openraft would have it lead on in its old term: <https://github.com/databendlabs/openraft/issues/1511>.
#[tokio::test]
async fn leader_that_comes_back_has_voted_for_itself_and_leads_nobody() {
    let (directory, storage) = created();
    let (mut log, _) = storage.halves();
    let comes_back_with = async |vote: Vote<u64>, log: &mut LogStore| {
        log.save_vote(&vote).await.unwrap();
        open(&killed(&directory)).halves().0.read_vote().await.unwrap().unwrap()
    };
    let led = comes_back_with(Vote::new_committed(3, 1), &mut log).await;
    assert_eq!(led, Vote::new(3, 1));
    let followed = comes_back_with(Vote::new_committed(4, 2), &mut log).await;
    assert_eq!(followed, Vote::new_committed(4, 2));
}

async fn read_by(reader: &mut LogReader, start: u64, end: u64) -> Vec<u64> {
    let entries = reader.limited_get_log_entries(start, end).await.unwrap();
    entries.into_iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn who_replicates_is_given_what_follows_or_nothing() {
    let (_directory, storage) = created();
    let (mut log, _) = storage.halves();
    log.blocking_append((1..=6).map(normal)).await.unwrap();
    let mut reader = log.get_log_reader().await;
    assert_eq!(read_by(&mut reader, 2, 5).await, [2, 3, 4]);
    log.purge(log_id(1, 1, 3)).await.unwrap();
    assert!(read_by(&mut reader, 2, 5).await.is_empty(), "4 does not follow upon 1");
    assert_eq!(read_by(&mut reader, 4, 6).await, [4, 5]);
}

#[tokio::test]
async fn who_replicates_is_given_nothing_of_a_log_that_is_not_its_leaders_any_more() {
    let (_directory, storage) = created();
    let (mut log, _) = storage.halves();
    log.blocking_append((1..=6).map(normal)).await.unwrap();
    let mut reader = log.get_log_reader().await;
    log.truncate(log_id(1, 1, 5)).await.unwrap();
    log.blocking_append([normal(5), normal(6)]).await.unwrap();
    assert!(read_by(&mut reader, 4, 7).await.is_empty());
    let mut reader = log.get_log_reader().await;
    assert_eq!(read_by(&mut reader, 4, 7).await, [4, 5, 6]);
    // As after a snapshot of another node.
    log.purge(log_id(2, 2, 6)).await.unwrap();
    log.blocking_append([normal(7)]).await.unwrap();
    assert!(read_by(&mut reader, 7, 8).await.is_empty());
}

#[tokio::test]
async fn kill_at_any_moment_leaves_a_prefix() {
    let (directory, storage) = created();
    let (mut log, _) = storage.halves();
    let mut copies = vec![(0, killed(&directory))];
    for index in 0..20 {
        log.blocking_append([normal(index)]).await.unwrap();
        copies.push((index + 1, killed(&directory)));
    }
    for (count, copy) in copies {
        assert_eq!(entries_of(&open(&copy)).await, Vec::from_iter(0..count));
    }
}

#[tokio::test]
async fn append_is_acknowledged_after_it_reached_the_file() {
    let (directory, storage) = created();
    drop(storage);
    let storage = Storage::open(&path_in(&directory), WHO, Writing::Thread).unwrap();
    let (mut log, _) = storage.halves();
    for index in 0..10 {
        log.blocking_append([normal(index)]).await.unwrap();
        let copy = killed(&directory);
        assert_eq!(entries_of(&open(&copy)).await.last(), Some(&index));
    }
}

#[tokio::test]
async fn large_entries_are_read_a_megabyte_at_a_time() {
    let (_directory, storage) = created();
    let (mut log, _) = storage.halves();
    let zone = "z".repeat(APPEND_BYTES_MAX / 2 + 1);
    let large = |index| {
        let command = Command::SetZoneWeight { node: NodeId(1), zone: zone.clone(), weight: 1 };
        Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(vec![command; 3]) }
    };
    log.blocking_append([normal(0), normal(1), large(2), large(3)]).await.unwrap();
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(0, 4).await.unwrap().len(), 2);
    assert_eq!(reader.limited_get_log_entries(2, 4).await.unwrap().len(), 1, "one goes alone");
}

#[tokio::test]
async fn snapshot_that_was_overtaken_is_not_kept() {
    let (directory, storage) = created();
    let (_, mut machine) = storage.halves();
    machine.apply([founding(0)]).await.unwrap();
    let mut old = machine.get_snapshot_builder().await;
    machine.apply([normal(1)]).await.unwrap();
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    old.build_snapshot().await.unwrap();
    let (_, mut machine) = open(&killed(&directory)).halves();
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 1, 1)));
}

#[tokio::test]
async fn how_far_was_committed_is_flushed_at_the_end() {
    let (directory, storage) = created();
    let (mut log, _) = storage.halves();
    log.blocking_append([normal(0)]).await.unwrap();
    log.save_committed(Some(log_id(1, 1, 0))).await.unwrap();
    storage.flush().await.unwrap();
    let (mut log, _) = open(&killed(&directory)).halves();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1, 0)));
}

/// Opens what must be refused, and sees that it is as it was.
fn refused(path: &Path, identity: Identity) -> OpenError {
    let before = fs::read(path).ok();
    let error = Storage::open(path, identity, Writing::Inline).err().expect("it is refused");
    assert_eq!(fs::read(path).ok(), before, "nothing was changed");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    error
}

#[test]
fn missing_file_is_refused_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(refused(&path_in(&directory), WHO), OpenError::Missing { .. }));
}

#[test]
fn file_of_another_node_or_cluster_is_refused() {
    let (directory, storage) = created();
    drop(storage);
    for other in [Identity { node: NodeId(2), ..WHO }, Identity { cluster: ClusterId(8), ..WHO }] {
        let error = refused(&path_in(&directory), other);
        assert!(matches!(error, OpenError::Foreign { found: WHO, .. }), "{error}");
    }
}

#[test]
fn file_is_made_once() {
    let (directory, storage) = created();
    drop(storage);
    let again = Storage::create(&path_in(&directory), WHO, Writing::Inline);
    assert!(matches!(again.err(), Some(OpenError::Present { .. })));
}

#[test]
fn what_a_crash_left_of_making_a_file_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("raft.new"), b"half").unwrap();
    Storage::create(&path_in(&directory), WHO, Writing::Inline).unwrap();
}

#[test]
fn file_in_use_is_refused() {
    let (directory, _storage) = created();
    assert!(matches!(refused(&path_in(&directory), WHO), OpenError::InUse { .. }));
}

#[test]
fn what_is_not_a_log_of_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = path_in(&directory);
    for foreign in [&b""[..], b"hello", &[0; 100_000]] {
        fs::write(&path, foreign).unwrap();
        assert!(matches!(refused(&path, WHO), OpenError::Unusable { .. }));
    }
    fs::remove_file(&path).unwrap();
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("accounts");
    transaction.open_table(table).unwrap().insert("x", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refused(&path, WHO), OpenError::Unusable { .. }));
}

#[tokio::test]
async fn damaged_file_is_refused_or_as_it_was() {
    let (directory, storage) = created();
    let (mut log, _) = storage.halves();
    for index in 0..50 {
        log.blocking_append([normal(index)]).await.unwrap();
    }
    drop((log, storage));
    let whole = fs::read(path_in(&directory)).unwrap();
    let mut refusals = 0;
    for at in (0..whole.len()).step_by(whole.len() / 200) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(path_in(&directory), &damaged).unwrap();
        match Storage::open(&path_in(&directory), WHO, Writing::Inline) {
            Ok(storage) => assert_eq!(entries_of(&storage).await, Vec::from_iter(0..50)),
            Err(error) => {
                refusals += 1;
                assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
                assert_eq!(fs::read(path_in(&directory)).unwrap(), damaged);
            }
        }
    }
    assert!(refusals > 0, "some of these bytes matter");
}

#[test]
fn file_cut_short_is_refused() {
    let (directory, storage) = created();
    drop(storage);
    let whole = fs::read(path_in(&directory)).unwrap();
    for bytes in [1, 100, 4096, whole.len() / 2] {
        fs::write(path_in(&directory), &whole[..bytes]).unwrap();
        assert!(matches!(refused(&path_in(&directory), WHO), OpenError::Unusable { .. }));
    }
}
