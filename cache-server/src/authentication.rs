//! Who may come in: users and passwords, of a file.
//!
//! ```text
//! -Y FILE                  user:password\n ...        read at the start, and again on SIGHUP
//! MEMCACHED_SASL_PWDB      user:password[:...]\n ...  read whenever somebody authenticates (-S)
//! ```
//!
//! Both are memcached's, and so is when they are read: `authfile.c`, `sasl_defs.c`. Over SASL a user
//! without a realm is known to memcached as `user@host`, the host's name being appended; such a line
//! lets the user in, and so does one without it.
//!
//! A password is compared in a time that does not depend on what it is, and is never logged.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::unistd::gethostname;
use parking_lot::RwLock;
use protocol::Credentials;
use subtle::{Choice, ConstantTimeEq};

use crate::config::Authentication;

/// The longest file that is read, in bytes. memcached's holds eight users.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The longest line, in bytes, its end included: memcached's `MAX_ENTRY_LEN`, less its NUL.
const LINE_BYTES_MAX: usize = 255;

/// Why an authentication file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// It cannot be read.
    #[error("cannot read the authentication file {}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A line of it names nobody.
    #[error("line {line} of the authentication file {} is not user:password", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line, from 1. What it says may be a password, and is not told.
        line: usize,
    },
}

/// Lets clients in.
#[derive(Debug)]
pub struct Guard {
    knows: Knows,
}

#[derive(Debug)]
enum Knows {
    /// Nobody has to be known.
    Nobody,
    /// Those in the authentication file.
    Users { path: PathBuf, users: RwLock<Users> },
    /// Those in the file of passwords, as it is then.
    SaslUsers { path: PathBuf, host: String },
}

impl Guard {
    /// One who knows whom `authentication` says.
    ///
    /// # Errors
    ///
    /// When there is an authentication file that cannot be used.
    pub fn open(authentication: &Authentication) -> Result<Self, AuthFileError> {
        let knows = match authentication {
            Authentication::None => Knows::Nobody,
            Authentication::File(path) => {
                // The background changes the working directory, and it is read again.
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let users = RwLock::new(Users::read(&path)?);
                Knows::Users { path, users }
            }
            Authentication::Sasl { password_file: Some(path) } => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let host = gethostname().unwrap_or_default().to_string_lossy().into_owned();
                Knows::SaslUsers { path, host }
            }
            Authentication::Sasl { password_file: None } => {
                tracing::warn!("nobody can authenticate: MEMCACHED_SASL_PWDB names no file");
                Knows::Nobody
            }
        };
        Ok(Self { knows })
    }

    /// Whether this is somebody who may come in.
    pub fn knows(&self, credentials: Credentials<'_>) -> bool {
        match &self.knows {
            Knows::Nobody => false,
            Knows::Users { users, .. } => users.read().know(credentials),
            Knows::SaslUsers { path, host } => match read_file(path) {
                Ok(file) => sasl_users_know(&file, host, credentials),
                Err(error) => {
                    tracing::warn!("nobody can authenticate: {}: {error}", path.display());
                    false
                }
            },
        }
    }

    /// Whether there is a file to read again.
    pub fn has_file(&self) -> bool {
        matches!(self.knows, Knows::Users { .. })
    }

    /// Reads the authentication file again. If it cannot be used, what was read before stands.
    pub fn reload(&self) {
        let Knows::Users { path, users } = &self.knows else { return };
        match Users::read(path) {
            Ok(read) => {
                tracing::info!("the authentication file names {} users", read.0.len());
                *users.write() = read;
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::error!("the users stay who they were: {error:#}");
            }
        }
    }
}

/// What an authentication file says.
struct Users(Vec<User>);

struct User {
    name: Box<[u8]>,
    password: Box<[u8]>,
}

/// Passwords are not printed.
impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} users", self.0.len())
    }
}

impl Users {
    fn read(path: &Path) -> Result<Self, AuthFileError> {
        let file = read_file(path)
            .map_err(|source| AuthFileError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&file).map_err(|line| AuthFileError::Malformed { path: path.to_owned(), line })
    }

    /// The users of a file, or the number of the first line that names none.
    fn parse(file: &[u8]) -> Result<Self, usize> {
        let mut users = Vec::new();
        for (index, line) in file.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let is_short = line.len() <= LINE_BYTES_MAX;
            // What stands behind the end of a password is not looked at.
            let end = line.iter().position(|byte| b"\r\n\0".contains(byte)).unwrap_or(line.len());
            let line = &line[..end];
            let colon = line.iter().position(|&byte| byte == b':').filter(|_| is_short);
            let (name, password) = line.split_at(colon.ok_or(index + 1)?);
            users.push(User { name: name.into(), password: password[1..].into() });
        }
        Ok(Self(users))
    }

    fn know(&self, credentials: Credentials<'_>) -> bool {
        // Every one is looked at, so that the time does not tell which it was.
        let found = self.0.iter().fold(Choice::from(0), |found, user| {
            let is_user = user.name.ct_eq(credentials.user);
            found | is_user & user.password.ct_eq(credentials.password)
        });
        found.into()
    }
}

/// Whether a line of memcached's file of passwords names the user, alone or at `host`, with this
/// password, which ends with the line or at a colon.
fn sasl_users_know(file: &[u8], host: &str, credentials: Credentials<'_>) -> bool {
    let Credentials { user, password } = credentials;
    let mut names = vec![user.to_vec()];
    if !user.contains(&b'@') {
        names.push([user, b"@", host.as_bytes()].concat());
    }
    let found = file.split(|&byte| byte == b'\n').fold(Choice::from(0), |found, line| {
        let end = line.iter().position(|byte| b"\r\0".contains(byte)).unwrap_or(line.len());
        let line = &line[..end];
        names.iter().fold(found, |found, name| {
            let rest = line.get(name.len()..).and_then(|rest| rest.strip_prefix(b":"));
            let Some((said, after)) = rest.and_then(|rest| rest.split_at_checked(password.len()))
            else {
                return found;
            };
            let ends_here = Choice::from(u8::from(matches!(after, [] | [b':', ..])));
            found | line[..name.len()].ct_eq(name) & said.ct_eq(password) & ends_here
        })
    });
    found.into()
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials<'a>(user: &'a str, password: &'a str) -> Credentials<'a> {
        Credentials { user: user.as_bytes(), password: password.as_bytes() }
    }

    fn users(file: &str) -> Users {
        Users::parse(file.as_bytes()).expect("users")
    }

    #[test]
    fn a_user_is_known_by_the_whole_password() {
        let users = users("foo:bar\nbaaaz:quux\r\nempty:\ncolon:a:b");
        for (user, password) in [("foo", "bar"), ("baaaz", "quux"), ("empty", ""), ("colon", "a:b")]
        {
            assert!(users.know(credentials(user, password)), "{user}");
        }
        for (user, password) in [
            ("foo", "ba"),
            ("foo", "barr"),
            ("fooo", "bar"),
            ("foo", "quux"),
            ("", ""),
            ("colon", "a"),
        ] {
            assert!(!users.know(credentials(user, password)), "{user}");
        }
    }

    #[test]
    fn a_line_that_names_nobody_is_told_by_its_number() {
        let line_of = |file: &str| Users::parse(file.as_bytes()).err();
        assert_eq!(line_of("foo:bar\nsecret\n"), Some(2));
        assert_eq!(line_of("foo:bar\n\n"), Some(2));
        assert_eq!(line_of(&format!("{}:bar\n", "x".repeat(251))), Some(1));
        assert_eq!(line_of(""), None);
    }

    #[test]
    fn a_file_that_became_unusable_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, "foo:bar\n").unwrap();
        let guard = Guard::open(&Authentication::File(path.clone())).unwrap();
        std::fs::write(&path, "no password\n").unwrap();
        guard.reload();
        assert!(guard.knows(credentials("foo", "bar")));
        std::fs::write(&path, "foo:new\n").unwrap();
        guard.reload();
        assert!(!guard.knows(credentials("foo", "bar")));
        assert!(guard.knows(credentials("foo", "new")));
        std::fs::remove_file(&path).unwrap();
        guard.reload();
        assert!(guard.knows(credentials("foo", "new")));
    }

    #[test]
    fn an_error_and_a_guard_printed_tell_no_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, "secret\n").unwrap();
        let error = Guard::open(&Authentication::File(path.clone())).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        std::fs::write(&path, "foo:secret\n").unwrap();
        let guard = Guard::open(&Authentication::File(path)).unwrap();
        assert!(!format!("{guard:?}").contains("secret"));
    }

    #[test]
    fn sasl_users_are_known_with_and_without_their_host() {
        let file = b"alice@here:secret\nbob@realm:pw:comment\r\ncarol:a:b\n";
        let knows = |user, password| sasl_users_know(file, "here", credentials(user, password));
        assert!(knows("alice", "secret") && knows("alice@here", "secret"));
        assert!(knows("bob@realm", "pw") && !knows("bob", "pw"));
        // What follows a colon is memcached's for comments.
        assert!(knows("carol", "a") && knows("carol", "a:b"));
        for (user, password) in
            [("alice", "secre"), ("alice", ""), ("alic", "secret"), ("", "secret"), ("carol", "b")]
        {
            assert!(!knows(user, password), "{user}");
        }
    }

    #[test]
    fn without_users_nobody_is_known() {
        let guard = Guard::open(&Authentication::Sasl { password_file: None }).unwrap();
        assert!(!guard.knows(credentials("", "")));
    }
}
