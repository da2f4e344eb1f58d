//! (tests) What memcached 1.6.45 makes of a line, tried out, and what is made of it here.
//!
//! A row is what a client sends and what follows: the requests that are understood, written as a
//! client would write them, and the errors that are answered. In [`SAME`] memcached answers the same
//! errors and carries out the same requests. [`DIFFERENT`] are the deliberate differences, each with
//! its reason.

use crate::request::decoder::{Decoder, Limits, Step};

type Row = (&'static str, &'static [&'static str]);

/// As memcached.
const SAME: &[Row] = &[
    ("shutdown\r\n", &["shutdown"]),
    ("shutdown graceful\r\n", &["shutdown graceful"]),
    ("shutdown now\r\n", &["shutdown otherwise"]),
    // Lines and tokens.
    ("\r\n", &["CLIENT_ERROR bad command line format"]),
    ("\n", &["CLIENT_ERROR bad command line format"]),
    ("  \r\n", &["ERROR"]),
    ("a\r\n", &["CLIENT_ERROR bad command line format"]),
    ("GET k\r\n", &["ERROR"]),
    ("get\tk\r\n", &["ERROR"]),
    ("get k\n", &["get k"]),
    (" get k\r\n", &["ERROR"]),
    ("get  k  \r\n", &["get k"]),
    ("get k\u{1}\u{7f}\r\n", &["get k\u{1}\u{7f}"]),
    ("get a\tb\r\n", &["get a\tb"]),
    ("get a\rb\r\n", &["get a\rb"]),
    ("get k\r\r\n", &["get k\r"]),
    // Gets.
    ("get\r\n", &["CLIENT_ERROR bad command line format"]),
    ("get \r\n", &["CLIENT_ERROR bad command line format"]),
    ("gets\r\n", &["CLIENT_ERROR bad command line format"]),
    ("gat\r\n", &["CLIENT_ERROR bad command line format"]),
    ("gets a b c\r\n", &["gets a b c"]),
    ("gat 10 a b\r\n", &["gat 10 a b"]),
    ("gats  -5 a\r\n", &["gats -1 a"]),
    ("gat abc k\r\n", &["CLIENT_ERROR invalid exptime argument"]),
    ("gat noreply k\r\n", &["CLIENT_ERROR invalid exptime argument"]),
    ("get KEY250\r\n", &["get KEY250"]),
    // Writes.
    ("set k 4294967295 0 1\r\na\r\n", &["set k 4294967295 0 1\r\na"]),
    ("set k -0 0 1\r\na\r\n", &["set k 0 0 1\r\na"]),
    ("set k 0 0 1 noreply\r\na\r\n", &["set k 0 0 1 noreply\r\na"]),
    ("set k 0 0 1 NOREPLY\r\na\r\n", &["set k 0 0 1\r\na"]),
    ("set k 0 0 1 foo\r\na\r\n", &["set k 0 0 1\r\na"]),
    ("set k 0 0 1 \r\na\r\n", &["set k 0 0 1\r\na"]),
    ("set k 0 0 1\n1\r\n", &["set k 0 0 1\r\n1"]),
    ("set k 0 0 0\r\n\r\n", &["set k 0 0 0\r\n"]),
    ("set k 0 -1 1\r\na\r\n", &["set k 0 -1 1\r\na"]),
    ("add k 1 2 1\r\na\r\n", &["add k 1 2 1\r\na"]),
    ("replace k 1 2 1\r\na\r\n", &["replace k 1 2 1\r\na"]),
    ("append k 1 2 1\r\na\r\n", &["append k 1 2 1\r\na"]),
    ("prepend k 1 2 1\r\na\r\n", &["prepend k 1 2 1\r\na"]),
    ("cas k 0 0 1 1 noreply\r\na\r\n", &["cas k 0 0 1 1 noreply\r\na"]),
    ("cas k 0 0 1 18446744073709551615\r\na\r\n", &["cas k 0 0 1 18446744073709551615\r\na"]),
    // A length that cannot be read leaves the data to be taken for a line.
    (
        "set k 0 0\r\na\r\n",
        &["CLIENT_ERROR bad command line format", "CLIENT_ERROR bad command line format"],
    ),
    (
        "set k 0 0 abc\r\na\r\n",
        &["CLIENT_ERROR bad command line format", "CLIENT_ERROR bad command line format"],
    ),
    ("set k 0 0 5x\r\nabcde\r\n", &["CLIENT_ERROR bad command line format", "ERROR"]),
    ("set k 0 0 -1\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("set k 0 0 2147483647\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    (
        "set k 0 0 abc noreply\r\na\r\n",
        &["CLIENT_ERROR bad command line format", "CLIENT_ERROR bad command line format"],
    ),
    // Data of another length: the next line begins behind the announced one and two bytes more.
    (
        "set k 0 0 3\r\nabcde\r\nmn\r\n",
        &["CLIENT_ERROR bad data chunk", "CLIENT_ERROR bad command line format", "mn"],
    ),
    ("set k 0 0 3\r\nabcdefgh\r\nmn\r\n", &["CLIENT_ERROR bad data chunk", "ERROR", "mn"]),
    (
        "set k 0 0 3\r\na\r\nmn\r\nmn\r\n",
        &["CLIENT_ERROR bad data chunk", "CLIENT_ERROR bad command line format", "mn"],
    ),
    (
        "set k 0 0 3\r\nabc\r\r\nmn\r\n",
        &["CLIENT_ERROR bad data chunk", "CLIENT_ERROR bad command line format", "mn"],
    ),
    (
        "set k 0 0 3\r\nabc\nmn\r\nmn\r\n",
        &["CLIENT_ERROR bad data chunk", "CLIENT_ERROR bad command line format", "mn"],
    ),
    ("set k 0 0 3\r\nabc\n\nmn\r\n", &["CLIENT_ERROR bad data chunk", "mn"]),
    ("set k 0 0 1\na\nget k\r\n", &["CLIENT_ERROR bad data chunk", "ERROR"]),
    ("set k 0 0 3 noreply\r\nabcdefgh\r\nmn\r\n", &["ERROR", "mn"]),
    ("ms k 3\r\nabcdefgh\r\nmn\r\n", &["CLIENT_ERROR bad data chunk", "ERROR", "mn"]),
    (
        "ms k 1 q c\r\nabc\r\nmn\r\n",
        &["CLIENT_ERROR bad data chunk", "CLIENT_ERROR bad command line format", "mn"],
    ),
    // Numbers.
    ("incr\r\n", &["CLIENT_ERROR bad command line format"]),
    ("incr k\r\n", &["CLIENT_ERROR bad command line format"]),
    ("incr k 1\r\n", &["incr k 1"]),
    ("incr k abc\r\n", &["CLIENT_ERROR invalid numeric delta argument"]),
    ("incr k -1\r\n", &["CLIENT_ERROR invalid numeric delta argument"]),
    ("incr k 18446744073709551616\r\n", &["CLIENT_ERROR invalid numeric delta argument"]),
    ("incr k 1 noreply\r\n", &["incr k 1 noreply"]),
    ("incr k abc noreply\r\nmn\r\n", &["mn"]),
    ("incr k noreply\r\nmn\r\n", &["mn"]),
    ("incr k 1 foo\r\n", &["incr k 1"]),
    ("incr k 1 noreply x\r\n", &["incr k 1"]),
    ("incr KEY251 abc\r\n", &["CLIENT_ERROR bad command line format"]),
    // Touch.
    ("touch\r\n", &["CLIENT_ERROR bad command line format"]),
    ("touch k\r\n", &["CLIENT_ERROR bad command line format"]),
    ("touch k 0\r\n", &["touch k 0"]),
    ("touch k abc\r\n", &["CLIENT_ERROR invalid exptime argument"]),
    ("touch k abc noreply\r\nmn\r\n", &["mn"]),
    ("touch k 0 noreply\r\n", &["touch k 0 noreply"]),
    ("touch k noreply\r\nmn\r\n", &["mn"]),
    ("touch k 0 foo\r\n", &["touch k 0"]),
    ("touch k 0 noreply foo\r\n", &["touch k 0"]),
    ("touch KEY251 abc\r\n", &["CLIENT_ERROR bad command line format"]),
    ("touch k 99999999999999999999\r\n", &["CLIENT_ERROR invalid exptime argument"]),
    // Delete.
    ("delete\r\n", &["CLIENT_ERROR bad command line format"]),
    ("delete k\r\n", &["delete k"]),
    ("delete k 0\r\n", &["delete k"]),
    ("delete k 0 noreply\r\n", &["delete k noreply"]),
    ("delete k noreply\r\n", &["delete k noreply"]),
    ("delete k 1\r\n", &["delete k"]),
    ("delete k noreply 0\r\n", &["delete k"]),
    ("delete k 0 0\r\n", &["delete k"]),
    ("delete KEY251 1\r\n", &["CLIENT_ERROR bad command line format"]),
    ("delete KEY251\r\n", &["CLIENT_ERROR bad command line format"]),
    // Administration.
    ("flush_all\r\n", &["flush_all"]),
    ("flush_all 0\r\n", &["flush_all"]),
    ("flush_all 10\r\n", &["flush_all 10"]),
    ("flush_all noreply\r\n", &["flush_all noreply"]),
    ("flush_all 0 noreply\r\n", &["flush_all noreply"]),
    ("flush_all 10 foo\r\n", &["flush_all 10"]),
    ("flush_all -1\r\n", &["flush_all -1"]),
    ("flush_all foo\r\n", &["CLIENT_ERROR invalid exptime argument"]),
    ("flush_all foo noreply\r\nmn\r\n", &["mn"]),
    ("flush_all noreply noreply\r\nmn\r\n", &["mn"]),
    ("flush_all 0 0 0\r\n", &["flush_all"]),
    ("verbosity 1\r\n", &["verbosity 1"]),
    ("verbosity 0 noreply\r\n", &["verbosity 0 noreply"]),
    ("verbosity 0 foo\r\n", &["verbosity 0"]),
    ("verbosity noreply\r\nmn\r\n", &["mn"]),
    ("verbosity abc\r\n", &["CLIENT_ERROR bad command line format"]),
    ("verbosity -1\r\n", &["CLIENT_ERROR bad command line format"]),
    ("watch\r\n", &["watch"]),
    ("watch  fetchers foo\r\n", &["watch fetchers foo"]),
    ("slabs automove 0\r\n", &["slabs automove 0"]),
    ("lru tune 1 2\r\n", &["lru tune 1 2"]),
    ("lru_crawler enable\r\n", &["lru_crawler enable"]),
    ("lru_crawlers enable\r\n", &["ERROR"]),
    ("GET / HTTP/1.1\r\n", &[]),
    ("HTTP/1.1\r\n", &["ERROR"]),
    ("version foo\r\n", &["version"]),
    ("quit foo\r\n", &["quit"]),
    ("config\r\n", &["ERROR"]),
    ("config get\r\n", &["ERROR"]),
    ("config get cluster x\r\n", &["ERROR"]),
    ("config get shards x\r\n", &["ERROR"]),
    ("config set cluster\r\n", &["ERROR"]),
    ("stats\r\n", &["stats"]),
    ("stats  items  1\r\n", &["stats items 1"]),
    // Meta get.
    ("mn\r\n", &["mn"]),
    ("mn foo\r\n", &["mn"]),
    ("mg\r\n", &["CLIENT_ERROR bad command line format"]),
    ("mx k\r\n", &["ERROR"]),
    ("mg k\r\n", &["mg k"]),
    ("mg k s v t f c h l k Oxx u q\r\n", &["mg k s t f c h l k Oxx v u q"]),
    ("mg k T-1 N30 R5\r\n", &["mg k T-1 N30 R5"]),
    ("mg k vfoo tbar\r\n", &["mg k t v"]),
    ("mg k Mx F1 D1 J1 I L P\r\n", &["mg k"]),
    ("mg k v v\r\n", &["CLIENT_ERROR duplicate flag"]),
    ("mg k \u{7f}\r\n", &["CLIENT_ERROR bad command line format"]),
    ("mg k e\r\n", &["CLIENT_ERROR invalid flag"]),
    ("mg k S1\r\n", &["CLIENT_ERROR invalid flag"]),
    ("mg k M\r\n", &["mg k"]),
    ("mg k F\r\n", &["CLIENT_ERROR bad command line format"]),
    ("mg k T\r\n", &["CLIENT_ERROR bad token in command line format"]),
    ("mg k Tabc\r\n", &["CLIENT_ERROR bad token in command line format"]),
    ("mg k R1x\r\n", &["CLIENT_ERROR bad token in command line format"]),
    ("mg k q Tx\r\n", &["CLIENT_ERROR bad token in command line format"]),
    ("mg k J D\r\n", &["CLIENT_ERROR invalid numeric delta value"]),
    ("mg k O\r\n", &["mg k O"]),
    ("mg k O1234567890123456789012345678901\r\n", &["mg k O1234567890123456789012345678901"]),
    ("mg k O12345678901234567890123456789012\r\n", &["CLIENT_ERROR opaque token too long"]),
    ("mg Zm9 b\r\n", &["CLIENT_ERROR error decoding key"]),
    ("mg !!! b\r\n", &["CLIENT_ERROR error decoding key"]),
    ("mg ==== b\r\n", &["CLIENT_ERROR error decoding key"]),
    ("mg k bfoo\r\n", &["CLIENT_ERROR error decoding key"]),
    ("mg KEY251 zz\r\n", &["CLIENT_ERROR bad command line format"]),
    ("mg k 1 2 3 4 5 6 7 8 9 0 a b c d e f g\r\n", &["CLIENT_ERROR invalid flag"]),
    ("mg k b c f h k l O q s t v N R T u 1 2 3\r\n", &["CLIENT_ERROR invalid flag"]),
    // Meta set.
    ("ms\r\n", &["CLIENT_ERROR bad command line format"]),
    ("ms k\r\n", &["CLIENT_ERROR bad command line format"]),
    (
        "ms k S1\r\na\r\n",
        &["CLIENT_ERROR bad command line format", "CLIENT_ERROR bad command line format"],
    ),
    (
        "ms k abc\r\na\r\n",
        &["CLIENT_ERROR bad command line format", "CLIENT_ERROR bad command line format"],
    ),
    (
        "ms k -1\r\na\r\n",
        &["CLIENT_ERROR bad command line format", "CLIENT_ERROR bad command line format"],
    ),
    ("ms k 1 T0 F5 c k Oxx\r\na\r\n", &["ms k 1 c k Oxx F5\r\na"]),
    ("ms k 1 MS\r\na\r\n", &["ms k 1\r\na"]),
    ("ms k 1 ME\r\na\r\n", &["ms k 1 ME\r\na"]),
    ("ms k 1 MA N0\r\na\r\n", &["ms k 1 MA N0\r\na"]),
    ("ms k 1 C5 I q\r\na\r\n", &["ms k 1 C5 I q\r\na"]),
    ("ms k 1 t f v h l\r\na\r\n", &["ms k 1\r\na"]),
    ("ms Zm9v 1 b k\r\na\r\n", &["ms Zm9v 1 b k\r\na"]),
    ("ms k 1 zz\r\na\r\nmn\r\n", &["CLIENT_ERROR invalid flag", "mn"]),
    ("ms k 1 1\r\na\r\nmn\r\n", &["CLIENT_ERROR invalid flag", "mn"]),
    ("ms k 1 c c\r\na\r\nmn\r\n", &["CLIENT_ERROR duplicate flag", "mn"]),
    ("ms k 1 Mx\r\na\r\nmn\r\n", &["CLIENT_ERROR invalid mode for ms M token", "mn"]),
    ("ms k 1 M\r\na\r\nmn\r\n", &["CLIENT_ERROR invalid mode for ms M token", "mn"]),
    ("ms k 1 Mset\r\na\r\nmn\r\n", &["CLIENT_ERROR invalid mode for ms M token", "mn"]),
    ("ms k 1 Fx\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("ms k 1 Cx\r\na\r\nmn\r\n", &["CLIENT_ERROR bad token in command line format", "mn"]),
    ("ms k 1 b\r\na\r\nmn\r\n", &["CLIENT_ERROR error decoding key", "mn"]),
    (
        "ms k 1 O12345678901234567890123456789012\r\na\r\nmn\r\n",
        &["CLIENT_ERROR opaque token too long", "mn"],
    ),
    // Meta delete.
    ("md\r\n", &["CLIENT_ERROR bad command line format"]),
    ("md k q I T30 C7 k O1\r\n", &["md k k O1 C7 I T30 q"]),
    ("md k zz\r\n", &["CLIENT_ERROR invalid flag"]),
    ("md k q q\r\n", &["CLIENT_ERROR duplicate flag"]),
    ("md k Cx\r\n", &["CLIENT_ERROR bad token in command line format"]),
    ("md k O12345678901234567890123456789012\r\n", &["CLIENT_ERROR opaque token too long"]),
    ("md KEY251\r\n", &["CLIENT_ERROR bad command line format"]),
    (
        "md k a b c d e f g h i j k l m n o p q r s t u v w x y z\r\n",
        &["CLIENT_ERROR options flags are too long"],
    ),
    // Meta arithmetic.
    ("ma\r\n", &["CLIENT_ERROR bad command line format"]),
    ("ma k N0 J13 v t c k O1\r\n", &["ma k t c k O1 J13 N0 v"]),
    ("ma k M+ D5\r\n", &["ma k D5"]),
    ("ma k M- D100 v q\r\n", &["ma k MD D100 v q"]),
    ("ma k Dx\r\n", &["CLIENT_ERROR invalid or duplicate flag"]),
    ("ma k D-1\r\n", &["CLIENT_ERROR invalid or duplicate flag"]),
    ("ma k Jx\r\n", &["CLIENT_ERROR invalid or duplicate flag"]),
    ("ma k M\r\n", &["CLIENT_ERROR invalid mode for ma M token"]),
    ("ma k Mx\r\n", &["CLIENT_ERROR invalid mode for ma M token"]),
    ("ma KEY251\r\n", &["CLIENT_ERROR invalid or duplicate flag"]),
    // Meta debug.
    ("me\r\n", &["CLIENT_ERROR bad command line format"]),
    ("me k\r\n", &["me k"]),
    ("me k zz\r\n", &["me k"]),
    ("me KEY251\r\n", &["CLIENT_ERROR bad command line format"]),
    // A write that is wrong swallows its data if its length can be read.
    ("set k abc 0 1\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("set k 0 abc 1\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("set k 0x10 0 5\r\nabcde\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("set k abc 0 1 noreply\r\na\r\nmn\r\n", &["mn"]),
    ("set k 0 0 1 noreply foo\r\na\r\nmn\r\n", &["set k 0 0 1\r\na", "mn"]),
    ("set KEY251 0 0 1\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("cas k 0 0 1\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("cas k 0 0 1 abc\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("ms KEY251 1\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    (
        "ms k 1 1 2 3 4 5 6 7 8 9 0 a b c d e f g\r\na\r\nmn\r\n",
        &["CLIENT_ERROR invalid flag", "mn"],
    ),
    // Numbers that do not fit.
    ("ms k 1 F4294967296\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
    ("verbosity 4294967296\r\n", &["CLIENT_ERROR bad command line format"]),
    (
        "set k 0 0 4294967297\r\na\r\n",
        &["CLIENT_ERROR bad command line format", "CLIENT_ERROR bad command line format"],
    ),
    // Rarer ones.
    ("gat 0\r\n", &["CLIENT_ERROR bad command line format"]),
    ("gats 0\r\n", &["CLIENT_ERROR bad command line format"]),
    ("bget k\r\n", &["ERROR"]),
    ("verbosity\r\n", &["CLIENT_ERROR bad command line format"]),
    ("verbosity 0 0 0\r\n", &["verbosity 0"]),
    ("mg k E5\r\n", &["mg k E5"]),
    ("mg k v C5\r\n", &["mg k v C5"]),
    ("ms k 1 E1000 s\r\na\r\n", &["ms k 1 s E1000\r\na"]),
    ("md k x E3\r\n", &["md k E3 x"]),
    ("get k\0z\r\n", &["get k\0z"]),
    ("foo noreply\r\nmn\r\n", &["mn"]),
    ("get noreply\r\n", &["get noreply"]),
    ("cas k 0 0 1 noreply\r\na\r\nmn\r\n", &["mn"]),
    (
        "mg k c f h k l s t v q u T0 N0 R0 O1 M1 C1 E1 F1\r\n",
        &["mg k c f h k l s t O1 v T0 N0 R0 C1 E1 u q"],
    ),
    (
        "mg k c f h k l s t v q u T0 N0 R0 O1 M1 C1 E1 F1 I\r\n",
        &["CLIENT_ERROR options flags are too long"],
    ),
    (
        "ms k 1 c f h k l s t v q u T0 N0 R0 O1 C1 E1 F1 I\r\na\r\nmn\r\n",
        &["CLIENT_ERROR options flags are too long", "mn"],
    ),
    (
        "ma k c f h k l s t v q u T0 N0 R0 O1 C1 E1 F1 I x\r\n",
        &["CLIENT_ERROR invalid or duplicate flag"],
    ),
    ("mg k -1\r\n", &["CLIENT_ERROR bad command line format"]),
];

/// Otherwise than memcached, on purpose: why, and what is sent and what follows.
const DIFFERENT: &[(&str, &[Row])] = &[
    (
        "backup and restore are ours",
        &[
            ("backup 0 0 0\r\n", &["backup 0 0 0"]),
            ("backup 1 2 3 user:\r\n", &["backup 1 2 3 user:"]),
            ("backup\r\n", &["CLIENT_ERROR bad command line format"]),
            ("backup 0 0\r\n", &["CLIENT_ERROR bad command line format"]),
            ("backup 0 0 0 a b\r\n", &["CLIENT_ERROR bad command line format"]),
            ("backup 0 0 x\r\n", &["CLIENT_ERROR bad command line format"]),
            ("backup 0 0 4294967296\r\n", &["CLIENT_ERROR bad command line format"]),
            ("backup 0 0 0 KEY251\r\n", &["CLIENT_ERROR bad command line format"]),
            ("restore 0\r\n\r\n", &["restore 0\r\n"]),
            (
                "restore 0 keep-newer 0000000000000000000000000000000a\r\n\r\n",
                &["restore 0 keep-newer 0000000000000000000000000000000a\r\n"],
            ),
            ("restore 1\r\na\r\nmn\r\n", &["CLIENT_ERROR bad data chunk", "mn"]),
            ("restore\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
            ("restore x\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
            (
                "restore 1 keep-newer\r\na\r\nmn\r\n",
                &["CLIENT_ERROR bad command line format", "mn"],
            ),
            (
                "restore 1 keep-newer 0a\r\na\r\nmn\r\n",
                &["CLIENT_ERROR bad command line format", "mn"],
            ),
        ],
    ),
    (
        "a time past 2038 is that time; memcached refuses it",
        &[("touch k 2147483648\r\n", &["touch k 2147483648"])],
    ),
    (
        "the time is set by clients of a server for tests; memcached has that in its debug build",
        &[("debugtime 1\r\n", &["debugtime 1"])],
    ),
    (
        "base64 holds nothing but base64; memcached skips what is none",
        &[("mg Zm!9v b k\r\n", &["CLIENT_ERROR error decoding key"])],
    ),
    (
        "questions for the nodes and the shards of a cluster are understood; a server of none answers ERROR too",
        &[
            ("config  get cluster \r\n", &["config get cluster"]),
            ("config get shards\r\n", &["config get shards"]),
        ],
    ),
    (
        "a number may have a `+`, white space in front, and anything after white space, as before 1.6.45, which \
         takes that in the flags and the expiry of a set alone",
        &[
            ("decr k 3\tx\r\n", &["decr k 3"]),
            ("incr k +3\r\n", &["incr k 3"]),
            ("set k 0 0 1\r\r\na\r\n", &["set k 0 0 1\r\na"]),
            ("set k +5 +0 +1\r\na\r\n", &["set k 5 0 1\r\na"]),
            ("set k \t7 0 5\tjunk\r\nabcde\r\n", &["set k 7 0 5\r\nabcde"]),
        ],
    ),
    (
        "client flags of 2^32 and more are refused; memcached stores what is left of them",
        &[("set k 4294967296 0 1\r\na\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"])],
    ),
    (
        "a key may be called noreply; memcached does not answer",
        &[("delete noreply\r\n", &["delete noreply"])],
    ),
    (
        "delete with words that nobody sends is refused, as before 1.6.45, which passes over them: memcapable \
         asks for that",
        &[
            ("delete k a b c\r\n", &["CLIENT_ERROR bad command line format"]),
            ("delete k 0 noreply c\r\n", &["CLIENT_ERROR bad command line format"]),
            ("delete k a b noreply\r\nmn\r\n", &["mn"]),
        ],
    ),
    (
        "one error line for a key too long; memcached adds a line end",
        &[
            ("gat 0 KEY251\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
            ("get KEY251\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
            ("get a KEY251 a\r\nmn\r\n", &["CLIENT_ERROR bad command line format", "mn"]),
        ],
    ),
    (
        "me takes a key in base64; memcached looks for the flag only where another follows",
        &[
            ("me !! b\r\n", &["CLIENT_ERROR bad command line format"]),
            ("me Zm9v b\r\n", &["me Zm9v b"]),
        ],
    ),
    (
        "a key in base64 comes back as it was written; memcached writes it as it was when the item was stored",
        &[("mg Zh== b k\r\n", &["mg Zh== b k"]), ("mg Zm9v b k O1\r\n", &["mg Zm9v b k O1"])],
    ),
    (
        "a line that begins with a space has no command; memcached takes its rarer ones",
        &[(" flush_all\r\n", &["ERROR"]), (" verbosity 1\r\n", &["ERROR"])],
    ),
    (
        "two letters and a bare line end are a command; memcached counts the bytes of both ends",
        &[("mn\n", &["mn"]), ("ge\n", &["ERROR"])],
    ),
    (
        "an opaque too long is noticed before anything is done; memcached has changed the number by then",
        &[("ma k O12345678901234567890123456789012\r\n", &["CLIENT_ERROR opaque token too long"])],
    ),
    ("me does not look at what follows the key", &[("me k -1\r\n", &["me k"])]),
];

/// `KEY250` and `KEY251` stand for keys of these lengths.
fn spelled_out(text: &str) -> String {
    text.replace("KEY250", &"k".repeat(250)).replace("KEY251", &"k".repeat(251))
}

/// The requests and errors that `input` amounts to; bytes left over wait for more and are no row's
/// business.
fn understood(input: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new(Limits::default());
    let (mut rest, mut lines) = (input, Vec::new());
    loop {
        let (consumed, line) = match decoder.decode(rest) {
            Step::More { .. } => return lines,
            Step::Request { consumed, request } => {
                let mut line = Vec::new();
                request.encode(&mut line);
                (consumed, line)
            }
            Step::Refused { consumed, refusal } => (consumed, refusal.line().as_bytes().to_vec()),
        };
        rest = &rest[consumed..];
        if !line.is_empty() {
            let line = line.strip_suffix(b"\r\n").expect("every line ends");
            lines.push(String::from_utf8(line.to_vec()).expect("the rows are text"));
        }
    }
}

fn check<'a>(rows: impl IntoIterator<Item = &'a Row>) {
    let mut wrong = Vec::new();
    for (input, expected) in rows {
        let expected: Vec<String> = expected.iter().map(|line| spelled_out(line)).collect();
        let understood = understood(spelled_out(input).as_bytes());
        if understood != expected {
            wrong.push(format!("{input:?}: {understood:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_line_is_understood_as_memcached_does() {
    check(SAME);
}

#[test]
fn the_deliberate_differences_are_these() {
    check(DIFFERENT.iter().flat_map(|(_why, rows)| *rows));
}
