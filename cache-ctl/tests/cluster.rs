//! The program against an admin port that says what it is told to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread::JoinHandle;

const STATUS: &str = include_str!("../../cache-server/src/admin/examples/status.json");
const MAP: &str = include_str!("../../cache-server/src/admin/examples/map.json");
const LOCATE: &str = include_str!("../../cache-server/src/admin/examples/locate.json");
const MOVES: &str = include_str!("../../cache-server/src/admin/examples/moves.json");
const TOKEN: &str = include_str!("../../cache-server/src/admin/examples/token.json");
const RECOVERY: &str = include_str!("../../cache-server/src/admin/examples/recovery.json");
const MRC: &str = include_str!("../../cache-server/src/admin/examples/mrc.json");
const AGREED: &str = include_str!("../../cache-server/src/admin/examples/agreed.json");

/// Runs `cache-ctl` with `arguments` against a port that answers one request with `status` and `answer`:
/// what it printed, and the request as `METHOD PATH BODY`.
fn run(status: u16, answer: &str, arguments: &[&str]) -> (Output, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = listener.local_addr().unwrap().to_string();
    let answer = answer.to_owned();
    let port: JoinHandle<String> =
        std::thread::spawn(move || answer_one(listener.accept().unwrap().0, status, &answer));
    let output = ctl(&[&["--node", &node], arguments].concat());
    // One that asked for nothing leaves the port waiting: let it go.
    drop(TcpStream::connect(&node));
    (output, port.join().unwrap())
}

fn answer_one(stream: TcpStream, status: u16, answer: &str) -> String {
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    reader.read_line(&mut request).unwrap();
    let mut body_bytes = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", length)) => body_bytes = length.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body).unwrap();
    let length = answer.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
    drop((&stream).write_all(format!("{head}{answer}").as_bytes()));
    let request = request.trim().trim_end_matches(" HTTP/1.1").to_owned();
    match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(body) => format!("{request} {body}"),
        Err(_) => request,
    }
}

fn ctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cache-ctl")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn status_is_a_summary_and_a_row_for_each_node() {
    let (output, request) = run(200, STATUS, &["status"]);
    assert_eq!(request, "GET /cluster/status");
    assert_eq!(
        text(&output.stdout),
        "\
cluster 00000000feedbeef, sessions with 2 copies, as node 1 sees it
control plane: node 2 leads, term 3, voters 1,2; map revision 42
shards: 3 of 4 serve, 2 lack a copy, 0 have no primary
something is amiss

node  state                    role  primaries  copies  zone  weight  clients          admin            peers            version
1     member                   data  3          4       a     100     127.0.0.1:11211  127.0.0.1:11311  127.0.0.1:11411  0.1.0
2     member, silent for 65 s  data  1          2       -     100     127.0.0.1:11212  127.0.0.1:11312  127.0.0.1:11412  0.1.0
"
    );
    assert_eq!(output.status.code(), Some(2), "something is amiss");
    let healthy = STATUS.replace("\"healthy\": false", "\"healthy\": true");
    let (output, _) = run(200, &healthy, &["status"]);
    assert!(text(&output.stdout).contains("all is well"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn who_leads_without_a_majority_leads_nobody() {
    let led = r#""leader": 2,"#;
    assert!(STATUS.contains(led));
    let leaderless = STATUS.replace(led, r#""leader": null, "leaderless_ms": 700,"#);
    let (output, _) = run(200, &leaderless, &["status"]);
    let said = text(&output.stdout);
    assert!(said.contains("nobody has led with a majority for 700 ms, term 3"), "{said}");
}

#[test]
fn a_node_tells_what_more_memory_would_do() {
    let (output, request) = run(200, MRC, &["mrc"]);
    assert_eq!(request, "GET /node/mrc");
    assert_eq!(
        text(&output.stdout),
        "\
-m 64 MiB, wtinylfu: 1843200 reads in 90 min, those before 30 min weighing half; 73.1% hit
the curve of lru, from 40210 of these reads, of 8034 objects (0.8% of all):

memory   change   hit ratio  points  between
32 MiB   -32 MiB  55.2%      -13.7   53.0% and 57.4%
64 MiB            68.9%      +0.0    67.0% and 70.9%
128 MiB  +64 MiB  80.2%      +11.2   78.5% and 81.8%

64 MiB more would do: hit ratio +11.2 points
32 MiB less would do: hit ratio -13.7 points
the server evicts by wtinylfu and hits 73.1% now, where lru would 68.9%: take the differences
"
    );
    let (output, _) = run(200, MRC, &["mrc", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said, serde_json::from_str::<serde_json::Value>(MRC).unwrap());
}

#[test]
fn recovery_is_shown_before_it_is_done() {
    let (output, request) = run(200, RECOVERY, &["recover"]);
    assert_eq!(request, r#"POST /cluster/recover {"accept_data_loss":false}"#);
    assert_eq!(
        text(&output.stdout),
        "\
shards  goes on at  with
3-4     node 1      its copy, which may lack the last writes
9       node 2      what its memory file brought back
11      node 1      nothing: their items are lost

nothing is changed yet. Bring back every node that can be brought back first; what only the others hold
is lost for good with --accept-data-loss
"
    );
    assert_eq!(output.status.code(), Some(2), "there is something to do");
    let done = RECOVERY.replace("\"is_done\": false", "\"is_done\": true");
    let (output, request) = run(200, &done, &["recover", "--accept-data-loss"]);
    assert_eq!(request, r#"POST /cluster/recover {"accept_data_loss":true}"#);
    assert!(text(&output.stdout).contains("done: other copies of these shards count for nothing"));
    assert_eq!(output.status.code(), Some(0));
    let (output, _) = run(200, r#"{"is_done": false, "shards": []}"#, &["recover"]);
    assert!(text(&output.stdout).contains("every shard goes on by itself"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn map_joins_shards_that_are_held_alike() {
    let (output, request) = run(200, MAP, &["map"]);
    assert_eq!(request, "GET /cluster/map");
    assert_eq!(
        text(&output.stdout),
        "\
shards  epoch  primary  in sync  wanted
0       5      1        1,2      1,2
1-2     5      1        1        1,2
3       0      -        -        -
"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn locate_sends_any_key() {
    let (output, request) = run(200, LOCATE, &["locate", "a+b&c/ä"]);
    assert_eq!(request, "GET /cluster/locate?key=a%2Bb%26c%2F%C3%A4");
    assert_eq!(
        text(&output.stdout),
        "\
key   shard  epoch  primary  clients          in sync  wanted
user  3      5      1        127.0.0.1:11211  1,2      1,2
"
    );
}

#[test]
fn moves_are_rows_and_none_is_said() {
    let (output, request) = run(200, MOVES, &["moves"]);
    assert_eq!(request, "GET /cluster/moves");
    assert_eq!(
        text(&output.stdout),
        "\
shard  from  to  state        items  bytes
7      1     2   catching up  1200   2.00 MiB
12 more wait for their turn
"
    );
    let (output, _) = run(200, "{\"running\": [], \"queued\": 0}", &["moves"]);
    assert_eq!(text(&output.stdout), "nothing is being moved\n");
}

#[test]
fn changes_are_posted_and_confirmed() {
    for (arguments, request, said) in [
        (&["drain", "2"][..], r#"POST /cluster/drain {"node":2}"#, "node 2 is being drained"),
        (&["undrain", "2"], r#"POST /cluster/undrain {"node":2}"#, "takes its share again"),
        (
            &["move", "7", "--to", "2,1"],
            r#"POST /cluster/move {"shard":7,"targets":[2,1]}"#,
            "shard 7 is to be held by 2,1",
        ),
        (&["remove", "2"], r#"POST /cluster/remove {"force":false,"node":2}"#, "no longer"),
        (
            &["remove", "2", "--force"],
            r#"POST /cluster/remove {"force":true,"node":2}"#,
            "no longer",
        ),
        (&["voters", "1,2", "3"], r#"POST /cluster/voters {"voters":[1,2,3]}"#, "are 1,2,3"),
    ] {
        let (output, found) = run(200, AGREED, arguments);
        assert_eq!(found, request);
        let stdout = text(&output.stdout);
        assert!(stdout.contains(said), "{arguments:?}: {stdout}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn add_prints_the_token_and_how_it_is_used() {
    let (output, request) = run(200, TOKEN, &["add", "--ttl", "60"]);
    assert_eq!(request, r#"POST /cluster/token {"ttl_s":60}"#);
    assert_eq!(
        text(&output.stdout),
        "\
One node may join with this token within 60 s:

secret

cache-server --cluster-dir DIR --join 127.0.0.1:11411,127.0.0.1:11412 --token-file FILE
"
    );
}

#[test]
fn json_is_what_the_node_said() {
    for (answer, arguments) in [
        (STATUS, &["status", "--json"][..]),
        (MAP, &["map", "--json"]),
        (LOCATE, &["locate", "k", "--json"]),
        (MOVES, &["moves", "--json"]),
        (TOKEN, &["add", "--json"]),
        (AGREED, &["drain", "1", "--json"]),
    ] {
        let (output, _) = run(200, answer, arguments);
        let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        assert_eq!(json(&output.stdout), json(answer.as_bytes()), "{arguments:?}");
    }
}

#[test]
fn a_refusal_is_told_in_the_nodes_words() {
    let (output, _) = run(409, r#"{"error": "node 2 is the last"}"#, &["drain", "2"]);
    assert_eq!(text(&output.stderr), "cache-ctl: node 2 is the last\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn who_is_no_admin_port_is_told() {
    for (status, answer) in [(200, "hello"), (200, "{}"), (404, "{}"), (500, "")] {
        let (output, _) = run(status, answer, &["status"]);
        let said = text(&output.stderr);
        assert!(said.contains("it is no admin port"), "{status} {answer}: {said}");
        assert_eq!(output.status.code(), Some(1));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = listener.local_addr().unwrap().to_string();
    let output = ctl(&["status", "--node", &node, "--timeout", "0.1"]);
    assert!(text(&output.stderr).contains("does not answer within 0.1 s"));
    drop(listener);
    let output = ctl(&["status", "--node", &node]);
    assert!(text(&output.stderr).contains("nobody answers at its admin port"));
    assert_eq!(output.status.code(), Some(1));
}
