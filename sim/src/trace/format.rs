//! `Format`: how a log is written, by name, by its file's name, or by its first lines.

use std::path::Path;

use super::fields::{digits, number, seconds, words};
use super::twitter::op_named;
use super::{csv, lcs, lines, vscsi};

/// Lines that are looked at to tell a format.
const LINES_LOOKED_AT: usize = 20;

/// How a log is written. Each is a file of [`crate::trace`], which says where the layout is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// To be told by the file's name and the log's first bytes.
    Guess,
    /// libCacheSim's binary records, see [`super::oracle_general`].
    OracleGeneral,
    /// The same with ops and namespaces.
    OracleGeneralOpNs,
    /// libCacheSim's own binary, of 2024 and 2025.
    Lcs,
    /// Twitter's traces in libCacheSim's binary records.
    Twr,
    /// Block I/O of virtual machines, versions 1 and 2.
    Vscsi,
    /// An id a line.
    Ids,
    /// Lines of fields, see [`super::csv`].
    Csv(csv::Layout),
    /// Columns of a Parquet file by name.
    Parquet(csv::Layout),
    /// Twitter's cache-trace.
    Twitter,
    /// Meta's key-value caches, June 2022.
    MetaKv2022,
    /// Meta's key-value caches, January 2024.
    MetaKv2024,
    /// Meta's CDN.
    MetaCdn,
    /// Meta's block storage.
    MetaBlock,
    /// Wikimedia's CDN 2019, uploads.
    WikimediaUpload2019,
    /// Wikimedia's CDN 2019, text.
    WikimediaText2019,
    /// Wikimedia's CDN 2016.
    Wikimedia2016,
    /// Wikibench 2007.
    Wikibench,
    /// MSR Cambridge's block I/O.
    Msr,
    /// Tencent's block storage.
    TencentBlock,
    /// Systor '17's block I/O.
    Systor,
    /// Tencent's photo store.
    TencentPhoto,
    /// ARC's runs of blocks.
    ArcLis,
    /// LIRS's ids and marks.
    Lirs,
    /// webcachesim's time, id and size.
    Webcachesim,
    /// memcached's `watch`.
    MemcachedWatch,
    /// memcached's proxy, `watch proxyreqs`.
    ProxyRequests,
    /// Redis's `MONITOR`.
    RedisMonitor,
    /// The combined log of nginx, Apache and Varnish.
    AccessLog,
    /// Squid's native log.
    Squid,
}

impl Format {
    /// Those that can be asked for, in the order of the help.
    pub const ALL: &'static [Self] = &[
        Self::OracleGeneral,
        Self::OracleGeneralOpNs,
        Self::Lcs,
        Self::Twr,
        Self::Vscsi,
        Self::Ids,
        Self::Csv(csv::Layout::DEFAULT),
        Self::Parquet(csv::Layout::DEFAULT),
        Self::Twitter,
        Self::MetaKv2022,
        Self::MetaKv2024,
        Self::MetaCdn,
        Self::MetaBlock,
        Self::WikimediaUpload2019,
        Self::WikimediaText2019,
        Self::Wikimedia2016,
        Self::Wikibench,
        Self::Msr,
        Self::TencentBlock,
        Self::Systor,
        Self::TencentPhoto,
        Self::ArcLis,
        Self::Lirs,
        Self::Webcachesim,
        Self::MemcachedWatch,
        Self::ProxyRequests,
        Self::RedisMonitor,
        Self::AccessLog,
        Self::Squid,
    ];

    /// The name on command lines and in reports.
    pub fn name(&self) -> &'static str {
        self.texts().0
    }

    /// What it is, for people.
    pub fn about(&self) -> &'static str {
        self.texts().1
    }

    fn texts(&self) -> (&'static str, &'static str) {
        match self {
            Self::Guess => ("auto", "told by the file's name and its first lines"),
            Self::OracleGeneral => ("oracle-general", "libCacheSim's binary records of 24 bytes"),
            Self::OracleGeneralOpNs => {
                ("oracle-general-op-ns", "the same with op and namespace, 27 bytes")
            }
            Self::Lcs => ("lcs", "libCacheSim's binary with a header"),
            Self::Twr => ("twr", "Twitter's traces in binary records of 20 bytes"),
            Self::Vscsi => ("vscsi", "block I/O of virtual machines, binary"),
            Self::Ids => ("ids", "an id a line"),
            Self::Csv(_) => ("csv", "lines of fields, see --csv"),
            Self::Parquet(_) => ("parquet", "columns of a Parquet file, see --csv"),
            Self::Twitter => ("twitter", "Twitter's cache-trace, CSV"),
            Self::MetaKv2022 => ("meta-kvcache-202206", "Meta's key-value caches, CSV"),
            Self::MetaKv2024 => ("meta-kvcache-202401", "Meta's key-value caches, CSV"),
            Self::MetaCdn => ("meta-cdn", "Meta's CDN, CSV"),
            Self::MetaBlock => ("meta-block", "Meta's block storage, CSV"),
            Self::WikimediaUpload2019 => ("wikimedia-upload-2019", "Wikimedia's CDN, tabs"),
            Self::WikimediaText2019 => ("wikimedia-text-2019", "Wikimedia's CDN, tabs"),
            Self::Wikimedia2016 => ("wikimedia-2016", "Wikimedia's CDN, tabs"),
            Self::Wikibench => ("wikibench", "requests to Wikipedia, 2007"),
            Self::Msr => ("msr", "MSR Cambridge's block I/O, CSV"),
            Self::TencentBlock => ("tencent-block", "Tencent's block storage, CSV"),
            Self::Systor => ("systor", "Systor '17's block I/O, CSV"),
            Self::TencentPhoto => ("tencent-photo", "Tencent's photo store"),
            Self::ArcLis => ("arc", "ARC's runs of blocks, .lis"),
            Self::Lirs => ("lirs", "LIRS's ids and marks"),
            Self::Webcachesim => ("webcachesim", "time, id and size, .tr"),
            Self::MemcachedWatch => {
                ("memcached-watch", "memcached's `watch fetchers mutations evictions deletions`")
            }
            Self::ProxyRequests => ("memcached-proxyreqs", "memcached's proxy, `watch proxyreqs`"),
            Self::RedisMonitor => ("redis-monitor", "Redis's and Valkey's MONITOR"),
            Self::AccessLog => ("combined", "the combined log of nginx, Apache and varnishncsa"),
            Self::Squid => ("squid", "Squid's native log"),
        }
    }

    /// Other names that people know it by.
    pub fn aliases(&self) -> &'static [&'static str] {
        match self {
            Self::AccessLog => &["nginx", "apache", "varnishncsa"],
            Self::OracleGeneral => &["oracleGeneral"],
            Self::MetaKv2024 => &["meta-kvcache"],
            Self::RedisMonitor => &["redis", "valkey-monitor"],
            Self::Webcachesim => &["lrb", "tr"],
            Self::ArcLis => &["lis"],
            _ => &[],
        }
    }

    /// Whether it is that of a key-value store, and may hold other ops than gets.
    pub fn has_writes(&self) -> bool {
        match self {
            Self::Csv(layout) | Self::Parquet(layout) => layout.op.is_some(),
            Self::OracleGeneralOpNs
            | Self::Lcs
            | Self::Twr
            | Self::Twitter
            | Self::MetaKv2022
            | Self::MetaKv2024
            | Self::MemcachedWatch
            | Self::ProxyRequests
            | Self::RedisMonitor => true,
            _ => false,
        }
    }

    /// Whether an object's bytes are those of its key and its value.
    pub fn keys_count(&self) -> bool {
        match self {
            Self::Csv(layout) | Self::Parquet(layout) => layout.key_size.is_some(),
            // Their sizes are of key and value together.
            Self::OracleGeneralOpNs | Self::Lcs => false,
            other => other.has_writes(),
        }
    }

    /// The format that a file's name tells, the ending of a packed one aside; case does not matter.
    pub fn guess(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let packed = [".zst", ".gz", ".xz"];
        let name = packed.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".oraclegeneral", ".oraclegeneral.bin"]) {
            Some(Self::OracleGeneral)
        } else if ends(&[".oraclegeneralopns", ".oraclegeneralopns.bin"]) {
            Some(Self::OracleGeneralOpNs)
        } else if ends(&[".lcs"]) {
            Some(Self::Lcs)
        } else if ends(&[".twr", ".twr.bin"]) {
            Some(Self::Twr)
        } else if ends(&[".vscsi", ".vscsitrace"]) {
            Some(Self::Vscsi)
        } else if ends(&[".lis"]) {
            Some(Self::ArcLis)
        } else if ends(&[".lirs", ".trc"]) {
            Some(Self::Lirs)
        } else if ends(&[".tr"]) {
            Some(Self::Webcachesim)
        } else if ends(&[".parquet"]) {
            Some(Self::Parquet(csv::Layout::default()))
        } else if ends(&[".csv"]) {
            Some(Self::Csv(csv::Layout::default()))
        } else if ends(&[".tsv"]) {
            Some(Self::Csv(csv::Layout { delimiter: b'\t', ..csv::Layout::default() }))
        } else {
            None
        }
    }

    /// The format that a log's first bytes tell; `named` is what its name tells.
    pub(crate) fn tell(named: Option<Self>, head: &[u8]) -> Option<Self> {
        match named {
            // Fields between commas may be anything.
            Some(Self::Csv(layout)) => Self::of_text(head).or(Some(Self::Csv(layout))),
            Some(format) => Some(format),
            None if head.starts_with(&lcs::MAGIC) => Some(Self::Lcs),
            None if head.starts_with(super::PARQUET_MAGIC) => {
                Some(Self::Parquet(csv::Layout::default()))
            }
            None if head.contains(&0) => vscsi::Vscsi::of(head).map(|_| Self::Vscsi),
            None => Self::of_text(head),
        }
    }

    /// The text format that the first lines tell.
    fn of_text(head: &[u8]) -> Option<Self> {
        let head = head.strip_prefix(lines::BYTE_ORDER_MARK).unwrap_or(head);
        let looked_at: Vec<&[u8]> = head
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii_end)
            .filter(|line| !line.is_empty())
            .take(LINES_LOOKED_AT)
            .collect();
        let lines = match looked_at.as_slice() {
            // The last one may be cut off.
            [lines @ .., _] if !lines.is_empty() && !head.ends_with(b"\n") => lines,
            lines => lines,
        };
        let first = *lines.first()?;
        if let Some(format) = Self::of_header(first) {
            return Some(format);
        }
        // Greetings say nothing, and a stray line must not decide: most of them count.
        let lines: Vec<&[u8]> = lines
            .iter()
            .copied()
            .filter(|line| !matches!(*line, b"OK" | b"+OK") && !line.starts_with(b"skipped="))
            .collect();
        let most = |is_it: fn(&[u8]) -> bool| {
            !lines.is_empty() && lines.iter().filter(|line| is_it(line)).count() * 2 > lines.len()
        };
        LOOKS
            .iter()
            .find(|(is_it, _)| most(*is_it))
            .map(|(_, format)| format.clone())
            .or_else(|| csv::Layout::of_header(first).map(Self::Csv))
    }

    /// The format whose header this is.
    fn of_header(line: &[u8]) -> Option<Self> {
        let begins = |text: &str| line.starts_with(text.as_bytes());
        if begins("op_time,key,key_size,op,") {
            Some(Self::MetaKv2024)
        } else if begins("key,op,size,op_count,key_size") {
            Some(Self::MetaKv2022)
        } else if begins("timestamp,cacheKey,OpType,") {
            Some(Self::MetaCdn)
        } else if begins("op_time,block_id,") {
            Some(Self::MetaBlock)
        } else if begins("Timestamp,Response,IOType,LUN,") {
            Some(Self::Systor)
        } else if begins("relative_unix\thashed_host_path_query") {
            Some(Self::WikimediaText2019)
        } else if begins("relative_unix\thashed_path_query") {
            Some(Self::WikimediaUpload2019)
        } else if begins("hashed_host_and_path\t") {
            Some(Self::Wikimedia2016)
        } else {
            None
        }
    }
}

/// Whether a line looks like one of a format.
type Look = (fn(&[u8]) -> bool, Format);

/// What lines look like, the most telling first.
const LOOKS: &[Look] = &[
    (|line| line.starts_with(b"ts=") && has(line, b" type=proxy_req "), Format::ProxyRequests),
    (|line| line.starts_with(b"ts=") && has(line, b" type="), Format::MemcachedWatch),
    (is_monitor, Format::RedisMonitor),
    (is_access_log, Format::AccessLog),
    (is_squid, Format::Squid),
    (is_tencent_photo, Format::TencentPhoto),
    (is_wikibench, Format::Wikibench),
    (is_twitter, Format::Twitter),
    (is_msr, Format::Msr),
    (is_tencent_block, Format::TencentBlock),
    (|line| is_wikimedia_2019(line, 5), Format::WikimediaUpload2019),
    (|line| is_wikimedia_2019(line, 4), Format::WikimediaText2019),
    (is_wikimedia_2016, Format::Wikimedia2016),
    (|line| line == b"*", Format::Lirs),
    (is_time_id_size, Format::Webcachesim),
    (is_one_word, Format::Ids),
];

fn has(line: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(line, text).is_some()
}

fn commas(line: &[u8]) -> Vec<&[u8]> {
    line.split(|&byte| byte == b',').collect()
}

fn tabs(line: &[u8]) -> Vec<&[u8]> {
    line.split(|&byte| byte == b'\t').collect()
}

fn are_numbers(fields: &[&[u8]]) -> bool {
    fields.iter().all(|field| number(field).is_some())
}

fn is_monitor(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"+").unwrap_or(line);
    let mut words = words(line);
    let time = words.next().is_some_and(|time| time.contains(&b'.') && seconds(time).is_ok());
    time && words.next().is_some_and(|word| word.starts_with(b"[")) && has(line, b"] \"")
}

fn is_access_log(line: &[u8]) -> bool {
    has(line, b" [") && has(line, b"] \"") && has(line, b"\" ")
}

fn is_squid(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = words(line).collect();
    words.len() >= 7
        && words[0].contains(&b'.')
        && seconds(words[0]).is_ok()
        && are_numbers(&[words[1], words[4]])
        && words[3].contains(&b'/')
}

fn is_tencent_photo(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = words(line).collect();
    words.len() == 8
        && super::tencent_photo::timestamp(words[0]).is_some()
        && matches!(words[6], b"PHONE" | b"PC")
}

fn is_wikibench(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = words(line).collect();
    words.len() == 4
        && are_numbers(&words[..1])
        && seconds(words[1]).is_ok()
        && words[2].starts_with(b"http")
}

fn is_twitter(line: &[u8]) -> bool {
    let fields = commas(line);
    fields.len() >= 7
        && are_numbers(&[fields[0], fields[fields.len() - 1]])
        && op_named(fields[fields.len() - 2]).is_some()
}

fn is_msr(line: &[u8]) -> bool {
    let fields = commas(line);
    fields.len() == 7
        && digits(fields[0], 0, 4).is_some()
        && fields[0].len() == 18
        && matches!(fields[3], b"Read" | b"Write")
}

fn is_tencent_block(line: &[u8]) -> bool {
    let fields = commas(line);
    fields.len() == 5 && are_numbers(&fields) && matches!(fields[3], b"0" | b"1")
}

fn is_wikimedia_2019(line: &[u8], count: usize) -> bool {
    let fields = tabs(line);
    // The last is a time with a fraction, perhaps with an exponent.
    fields.len() == count
        && are_numbers(&[fields[0], fields[count - 2]])
        && fields[count - 1].first().is_some_and(u8::is_ascii_digit)
        && fields[count - 1].contains(&b'.')
}

fn is_wikimedia_2016(line: &[u8]) -> bool {
    let fields = tabs(line);
    fields.len() == 5 && fields[2].contains(&b'/') && number(fields[3]).is_some()
}

fn is_time_id_size(line: &[u8]) -> bool {
    let mut words = words(line);
    let first: Vec<&[u8]> = words.by_ref().take(3).collect();
    first.len() == 3 && are_numbers(&first) && words.all(|word| seconds(word).is_ok())
}

fn is_one_word(line: &[u8]) -> bool {
    let is_plain = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b',' | b';');
    line.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_told_by_the_name() {
        let guess = |name: &str| Format::guess(Path::new(name)).map(|format| format.name());
        assert_eq!(guess("logs/a.oracleGeneral.zst"), Some("oracle-general"));
        assert_eq!(guess("cloudPhysicsIO.oracleGeneral.bin"), Some("oracle-general"));
        assert_eq!(guess("a.CSV"), Some("csv"));
        assert_eq!(guess("a.csv.zst"), Some("csv"));
        assert_eq!(guess("OLTP.lis.gz"), Some("arc"));
        assert_eq!(guess("wiki2018.tr.xz"), Some("webcachesim"));
        assert_eq!(guess("a.log"), None);
        assert_eq!(guess("-"), None);
        let tabs = Format::Csv(csv::Layout { delimiter: b'\t', ..csv::Layout::default() });
        assert_eq!(Format::guess(Path::new("a.tsv")), Some(tabs));
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> = Format::ALL
            .iter()
            .flat_map(|format| {
                std::iter::once(format.name()).chain(format.aliases().iter().copied())
            })
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn format_is_told_by_the_first_lines() {
        for (text, name) in [
            (
                "OK\nts=1.5 gid=1 type=item_get key=a status=found clsid=0 cfd=1 size=1\n",
                "memcached-watch",
            ),
            (
                "OK\nskipped=3\nts=1.5 gid=1 type=proxy_req elapsed=1 req=get a\n",
                "memcached-proxyreqs",
            ),
            ("OK\n1378822105.089572 [0 127.0.0.1:56604] \"GET\" \"a\"\n", "redis-monitor"),
            (
                "1.1.1.1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"x\"\n",
                "combined",
            ),
            (
                "1286536308.779 180 10.0.0.1 TCP_MISS/200 411 GET http://a/b - DIRECT/1 text/html\n",
                "squid",
            ),
            ("20160201164604 085a 5 m 12903 1 PHONE 1\n", "tencent-photo"),
            ("929840891 1190146243.326 http://en.wikipedia.org/wiki/Main_Page -\n", "wikibench"),
            ("0,q:q:1:8W,17,249,1,get,0\n", "twitter"),
            ("128166372003061629,hm,1,Read,383496192,32768,413\n", "msr"),
            ("1538323200,12910952,128,0,1063\n", "tencent-block"),
            ("Timestamp,Response,IOType,LUN,Offset,Size\n1.0,0.1,W,0,1,2\n", "systor"),
            ("0\t833946053\tjpeg\t9665\t1.85E-4\n", "wikimedia-upload-2019"),
            ("0\t833946053\t9665\t1.85E-4\n", "wikimedia-text-2019"),
            ("2385\t\ttext/html\t77\thit\n", "wikimedia-2016"),
            (
                "op_time,key,key_size,op,op_count,size,cache_hits,ttl,usecase,sub_usecase\n",
                "meta-kvcache-202401",
            ),
            ("key,op,size,op_count,key_size\n", "meta-kvcache-202206"),
            ("timestamp,cacheKey,OpType,objectSize,responseSize\n", "meta-cdn"),
            ("op_time,block_id,block_id_size,io_size,io_offset\n", "meta-block"),
            ("1 4 1024\n2 5 10\n", "webcachesim"),
            ("/a\n/b\n42\n", "ids"),
            ("time,obj_id,obj_size\n1,2,3\n", "csv"),
        ] {
            let told = Format::tell(None, text.as_bytes());
            assert_eq!(told.map(|format| format.name()), Some(name), "{text}");
        }
        assert_eq!(Format::tell(None, b""), None);
        assert_eq!(Format::tell(None, b"what, ever this is\n"), None);
    }

    #[test]
    fn what_a_name_says_of_a_csv_is_overruled_by_its_lines() {
        let named = Format::guess(Path::new("a.csv"));
        assert_eq!(Format::tell(named.clone(), b"0,k,1,1,1,get,0\n"), Some(Format::Twitter));
        assert_eq!(Format::tell(named.clone(), b"1,2,3\n"), named);
    }
}
