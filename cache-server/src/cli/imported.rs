//! `--memcached-conf FILE`: the configuration that a distribution starts memcached with, taken over as it is.
//!
//! ```text
//! Debian, /etc/memcached.conf: one flag a line         Red Hat, /etc/sysconfig/memcached: shell variables
//!
//! # a comment                                          PORT="11211"         -p
//! -m 64                                                USER="memcached"     -u
//! -l 127.0.0.1        # another                        MAXCONN="1024"       -c
//! logfile /var/log/memcached.log                       CACHESIZE="64"       -m
//!                                                      OPTIONS="-l 127.0.0.1,::1"
//! ```
//!
//! The first line that says anything tells which of the two it is. As Debian's wrapper does, `-d` and `-h`
//! are passed over and `-u root` stands where no user is named; the log goes where the service manager
//! sends it, so `logfile` is passed over as well.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::refused::Refused;

/// The flags of one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1; 0 for what the file goes without saying.
    pub(super) number: usize,
    pub(super) arguments: Vec<String>,
}

/// What a file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Imported {
    pub(super) lines: Vec<Line>,
    pub(super) warnings: Vec<String>,
}

impl Imported {
    /// All flags, in the order of the lines.
    pub(super) fn arguments(&self) -> impl Iterator<Item = OsString> {
        self.lines.iter().flat_map(|line| &line.arguments).map(OsString::from)
    }
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<Imported, Refused> {
    let text = fs::read_to_string(path)
        .map_err(|error| Refused::usage(format!("cannot read {}: {error}", path.display())))?;
    parse(&text).map_err(|(number, reason)| at(path, number, reason))
}

/// `reason`, with the place in the file that gave it.
pub(super) fn at(path: &Path, number: usize, refused: Refused) -> Refused {
    Refused { reason: format!("{}:{number}: {}", path.display(), refused.reason), ..refused }
}

fn parse(text: &str) -> Result<Imported, (usize, Refused)> {
    let says = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let first = text.lines().find(says).unwrap_or("");
    if assignment(first.trim()).is_some() { parse_variables(text) } else { parse_flags(text) }
}

/// Debian's form.
fn parse_flags(text: &str) -> Result<Imported, (usize, Refused)> {
    let mut imported = Imported::default();
    for (number, line) in (1..).zip(text.lines()) {
        let words = split(line).map_err(|refused| (number, refused))?;
        let Some(first) = words.first() else { continue };
        if first == "logfile" {
            let told = "logfile: the log goes to standard error, for the service manager to keep";
            imported.warnings.push(told.into());
        } else if !first.starts_with('-') {
            let reason = format!("{first:?} is no flag, and not logfile");
            return Err((number, Refused::usage(reason)));
        } else if !first.starts_with("-d") && !first.starts_with("-h") {
            imported.lines.push(Line { number, arguments: words });
        }
    }
    let names_user = |line: &Line| {
        line.arguments.iter().any(|word| word.starts_with("-u") || word.starts_with("--us"))
    };
    if !imported.lines.iter().any(names_user) {
        let arguments = vec!["-u".into(), "root".into()];
        imported.lines.insert(0, Line { number: 0, arguments });
    }
    Ok(imported)
}

/// Red Hat's form.
fn parse_variables(text: &str) -> Result<Imported, (usize, Refused)> {
    let mut imported = Imported::default();
    for (number, line) in (1..).zip(text.lines()) {
        let words = split(line).map_err(|refused| (number, refused))?;
        let Some(word) = words.first() else { continue };
        let word = word
            .strip_prefix("export")
            .filter(|rest| rest.is_empty())
            .map_or(word, |_| words.get(1).unwrap_or(word));
        let Some((name, value)) = assignment(word) else {
            return Err((number, Refused::usage(format!("{word:?} is no NAME=VALUE"))));
        };
        let flag = match name {
            "PORT" => "-p",
            "USER" => "-u",
            "MAXCONN" => "-c",
            "CACHESIZE" => "-m",
            "OPTIONS" => {
                // Quotes within were for the shell that reads the file; what is left are words.
                let arguments = split(value).map_err(|refused| (number, refused))?;
                imported.lines.push(Line { number, arguments });
                continue;
            }
            _ => {
                imported
                    .warnings
                    .push(format!("{name}: no variable that memcached is started with"));
                continue;
            }
        };
        if !value.is_empty() {
            let arguments = vec![flag.to_owned(), value.to_owned()];
            imported.lines.push(Line { number, arguments });
        }
    }
    Ok(imported)
}

/// `NAME=VALUE`.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.strip_prefix("export ").unwrap_or(word).split_once('=')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_variable = !name.is_empty() && name.bytes().all(is_name);
    is_variable.then_some((name, value))
}

/// The words of a line as a shell reads it: quotes, backslashes, and a comment behind `#`.
fn split(line: &str) -> Result<Vec<String>, Refused> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => {
                if let Some(next) = letters.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            ('#', None) if word.is_none() => break,
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(open) = quote {
        return Err(Refused::usage(format!("a quote {open} is not closed")));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<OsString> {
        parse(text).unwrap().arguments().collect()
    }

    #[test]
    fn debians_file_is_taken_line_by_line() {
        let text = "# memcached default config file\n\n-d\nlogfile /var/log/memcached.log\n\
                    # -v\n-m 64\n  -p 11211   # the usual one\n-u memcache\n-l 127.0.0.1\n-hx\n\
                    -P /var/run/memcached/memcached.pid\n";
        let words = [
            "-m",
            "64",
            "-p",
            "11211",
            "-u",
            "memcache",
            "-l",
            "127.0.0.1",
            "-P",
            "/var/run/memcached/memcached.pid",
        ];
        assert_eq!(arguments(text), words);
        let imported = parse(text).unwrap();
        assert_eq!(imported.lines[1].number, 7);
        assert_eq!(imported.warnings.len(), 1);
    }

    #[test]
    fn where_debians_file_names_no_user_it_means_root() {
        assert_eq!(arguments("-m 64\n"), ["-u", "root", "-m", "64"]);
        assert_eq!(arguments("-m 64\n--user=nobody\n"), ["-m", "64", "--user=nobody"]);
    }

    #[test]
    fn red_hats_variables_become_flags() {
        let text = "# defaults\nPORT=\"11211\"\nUSER='memcached'\nMAXCONN=1024\nCACHESIZE=\"64\"\n\
                    OPTIONS=\"-l 127.0.0.1,::1 -o 'modern'\"\n";
        let words = [
            "-p",
            "11211",
            "-u",
            "memcached",
            "-c",
            "1024",
            "-m",
            "64",
            "-l",
            "127.0.0.1,::1",
            "-o",
            "modern",
        ];
        assert_eq!(arguments(text), words);
        assert_eq!(arguments("PORT=1\nOPTIONS=\"\"\n"), ["-p", "1"]);
        assert_eq!(arguments("export PORT=1\nUSER=\n"), ["-p", "1"]);
        let other = parse("PORT=1\nLANG=C\n").unwrap();
        assert!(other.warnings[0].starts_with("LANG"), "{other:?}");
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, number) in [
            ("-m 64\nmemory 64\n", 2),
            ("-m 64\n\n-l '127.0.0.1\n", 3),
            ("PORT=1\nOPTIONS=\"-v\n", 2),
            ("PORT=1\n-v\n", 2),
        ] {
            assert_eq!(parse(text).map_err(|(number, _)| number), Err(number), "{text:?}");
        }
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(split(r#"-o "a b" 'c d' e\ f #g"#).unwrap(), ["-o", "a b", "c d", "e f"]);
        assert_eq!(split("-s /run/#1").unwrap(), ["-s", "/run/#1"]);
        assert_eq!(split("''").unwrap(), [""]);
        assert_eq!(split("  # only a comment").unwrap(), [""; 0]);
    }
}
