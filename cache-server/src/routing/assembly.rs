//! The answer to a get of many keys that several nodes have, in the order of the keys.
//!
//! ```text
//! get      a     b  c     d     e  f       a and d are here, b and e on one node, c and f on another
//! out:    | a's | hold 1 | d's | hold 2 |
//! slots:          0  1           2  3
//! parts:   [0, 2] and [1, 3]               a line and an answer each
//! ```
//!
//! memcached answers a get in the order of its keys, and a client may count on that: Perl's `Cache::Memcached::Fast`
//! compares each value with the keys that are left, and takes those it had to skip for misses.
//!
//! - A run is a row of keys that are elsewhere. It has one hold, which is resolved once all its keys are answered.
//! - A part is what one node is asked: its keys are in the order of their slots, and so are the values it answers.
//!   What a node leaves out is a miss.

use bytes::Bytes;

use super::without_end;
use crate::net::ticket::Ticket;

/// What has come of such an answer.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    runs: Vec<Run>,
    slots: Vec<Slot>,
    /// The slots of each part.
    parts: Vec<Vec<usize>>,
    unanswered: usize,
}

/// The slots from `first` to the next run's.
#[derive(Debug)]
struct Run {
    ticket: Ticket,
    first: usize,
    unanswered: usize,
}

/// The place of one key's value; empty while there is none.
#[derive(Debug)]
struct Slot {
    run: usize,
    value: Bytes,
}

impl Assembly {
    /// The next key is elsewhere, and the one before it was not: `ticket` is held between them.
    pub(super) fn begin_run(&mut self, ticket: Ticket) {
        self.runs.push(Run { ticket, first: self.slots.len(), unanswered: 0 });
    }

    /// A part without keys.
    pub(super) fn begin_part(&mut self) -> usize {
        self.parts.push(Vec::new());
        self.parts.len() - 1
    }

    /// The next key of the last run goes with `part`.
    pub(super) fn push(&mut self, part: usize) {
        debug_assert!(!self.runs.is_empty(), "a key that is elsewhere is in a run");
        let run = self.runs.len() - 1;
        self.parts[part].push(self.slots.len());
        self.slots.push(Slot { run, value: Bytes::new() });
        self.runs[run].unanswered += 1;
        self.unanswered += 1;
    }

    /// Makes each key of a part a part of its own, in their order.
    pub(super) fn split(&mut self, part: usize) -> std::ops::Range<usize> {
        let first = self.parts.len();
        let slots = std::mem::take(&mut self.parts[part]);
        self.parts.extend(slots.into_iter().map(|slot| vec![slot]));
        first..self.parts.len()
    }

    /// What a node answered to the `keys` of a part; an error is an answer without values. Returns the runs that
    /// are whole now.
    pub(super) fn answer<'a>(
        &mut self,
        part: usize,
        keys: impl Iterator<Item = &'a [u8]>,
        answer: &Bytes,
    ) -> Vec<(Ticket, Bytes)> {
        let mut values = without_end(answer);
        let mut whole = Vec::new();
        for (slot, key) in std::mem::take(&mut self.parts[part]).into_iter().zip(keys) {
            if let Some((found, bytes)) = first_value(&values)
                && found == key
            {
                self.slots[slot].value = values.split_to(bytes);
            }
            let index = self.slots[slot].run;
            self.unanswered -= 1;
            self.runs[index].unanswered -= 1;
            if self.runs[index].unanswered == 0 {
                whole.push((self.runs[index].ticket, self.run(index)));
            }
        }
        whole
    }

    /// Whether every key is answered.
    pub(super) fn is_whole(&self) -> bool {
        self.unanswered == 0
    }

    /// The values of a run.
    fn run(&self, index: usize) -> Bytes {
        let end = self.runs.get(index + 1).map_or(self.slots.len(), |next| next.first);
        match &self.slots[self.runs[index].first..end] {
            [slot] => slot.value.clone(),
            slots => slots.iter().flat_map(|slot| slot.value.iter().copied()).collect(),
        }
    }
}

/// The key of the first value in `values`, and how long the value is with its line: `VALUE <key> <flags> <bytes>`,
/// and perhaps a cas.
fn first_value(values: &[u8]) -> Option<(&[u8], usize)> {
    let line_bytes = values.iter().position(|&byte| byte == b'\n')? + 1;
    let line = values[..line_bytes].trim_ascii_end().strip_prefix(b"VALUE ")?;
    let mut words = line.split(|&byte| byte == b' ');
    let (key, _flags, value_bytes) = (words.next()?, words.next()?, words.next()?);
    let value_bytes: usize = std::str::from_utf8(value_bytes).ok()?.parse().ok()?;
    let bytes = line_bytes.checked_add(value_bytes)?.checked_add(b"\r\n".len())?;
    (bytes <= values.len()).then_some((key, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ticket::HolderId;

    fn ticket(number: u64) -> Ticket {
        Ticket { number, holder: HolderId { slot: 0, generation: 0 } }
    }

    fn value(key: &str) -> String {
        // A value that looks like another's line must not be taken for one.
        format!("VALUE {key} 0 15 7\r\nVALUE x 0 1 1\r\n\r\n")
    }

    fn answer_with(keys: &[&str]) -> Bytes {
        (keys.iter().map(|key| value(key)).collect::<String>() + "END\r\n").into()
    }

    /// Two runs, of `b c` and of `e f`, whose keys go by turns with two parts.
    fn assembly() -> (Assembly, [usize; 2]) {
        let mut assembly = Assembly::default();
        let parts = [assembly.begin_part(), assembly.begin_part()];
        for run in 0..2 {
            assembly.begin_run(ticket(run));
            parts.iter().for_each(|&part| assembly.push(part));
        }
        (assembly, parts)
    }

    fn answered(
        assembly: &mut Assembly,
        part: usize,
        asked: [&str; 2],
        found: &[&str],
    ) -> Vec<(u64, String)> {
        let keys = asked.iter().map(|key| key.as_bytes());
        let whole = assembly.answer(part, keys, &answer_with(found)).into_iter();
        whole
            .map(|(ticket, run)| (ticket.number, String::from_utf8(run.to_vec()).unwrap()))
            .collect()
    }

    #[test]
    fn values_of_several_nodes_come_in_the_order_of_the_keys() {
        let (mut assembly, [one, other]) = assembly();
        assert!(answered(&mut assembly, other, ["c", "f"], &["c", "f"]).is_empty());
        assert!(!assembly.is_whole());
        let whole = answered(&mut assembly, one, ["b", "e"], &["b", "e"]);
        assert_eq!(whole, [(0, value("b") + &value("c")), (1, value("e") + &value("f"))]);
        assert!(assembly.is_whole());
    }

    #[test]
    fn what_a_node_leaves_out_is_a_miss() {
        let (mut assembly, [one, other]) = assembly();
        assert!(answered(&mut assembly, one, ["b", "e"], &["e"]).is_empty());
        let whole = answered(&mut assembly, other, ["c", "f"], &["c"]);
        assert_eq!(whole, [(0, value("c")), (1, value("e"))]);
    }

    #[test]
    fn an_error_is_an_answer_without_values() {
        let (mut assembly, [one, other]) = assembly();
        let error = Bytes::from_static(b"SERVER_ERROR busy\r\n");
        assert!(assembly.answer(one, [&b"b"[..], b"e"].into_iter(), &error).is_empty());
        let whole = answered(&mut assembly, other, ["c", "f"], &["c", "f"]);
        assert_eq!(whole, [(0, value("c")), (1, value("f"))]);
    }

    #[test]
    fn keys_of_a_part_may_be_asked_for_one_by_one() {
        let (mut assembly, [one, other]) = assembly();
        let [b, e]: [usize; 2] = assembly.split(one).collect::<Vec<_>>().try_into().unwrap();
        answered(&mut assembly, other, ["c", "f"], &["c", "f"]);
        let asked = |assembly: &mut Assembly, part, key: &str| {
            let keys = std::iter::once(key.as_bytes());
            let whole = assembly.answer(part, keys, &answer_with(&[key]));
            whole.into_iter().map(|(ticket, _)| ticket.number).collect::<Vec<_>>()
        };
        assert_eq!(asked(&mut assembly, e, "e"), [1]);
        assert_eq!(asked(&mut assembly, b, "b"), [0]);
        assert!(assembly.is_whole());
    }

    #[test]
    fn a_key_that_is_asked_for_twice_has_a_value_each_time() {
        let mut assembly = Assembly::default();
        let part = assembly.begin_part();
        assembly.begin_run(ticket(0));
        assembly.push(part);
        assembly.push(part);
        let whole = answered(&mut assembly, part, ["k", "k"], &["k", "k"]);
        assert_eq!(whole, [(0, value("k") + &value("k"))]);
    }

    #[test]
    fn what_is_no_value_is_none() {
        for bytes in [
            "",
            "VALUE k 0 1",
            "VALUE k 0 1\r\na",
            "VALUE k 0\r\n",
            "VALUE k 0 x\r\na\r\n",
            "k 0 1\r\n",
        ] {
            assert_eq!(first_value(bytes.as_bytes()), None, "{bytes:?}");
        }
        assert_eq!(first_value(b"VALUE k 0 1\r\na\r\nrest"), Some((&b"k"[..], 16)));
    }
}
