//! The search held against one that is too simple to be wrong, on histories that are right, nearly right, or
//! any.

use proptest::prelude::*;

use super::tests::{
    FORGETFUL, append, delete, done, get, incr, is_right, is_right_under, put, unknown, value,
};
use super::*;

/// A cache that takes one request after the other, each at one moment.
#[derive(Default)]
pub(super) struct Cache {
    item: Option<(Vec<u8>, u64)>,
    cas: u64,
}

impl Cache {
    fn store(&mut self, value: Vec<u8>) {
        self.cas += 1;
        self.item = Some((value, self.cas));
    }

    pub(super) fn serve(&mut self, request: &Request) -> Answer {
        match (request, self.item.clone()) {
            (Request::Get { .. }, Some((value, cas))) => Answer::Value { value, flags: 0, cas },
            (Request::Put { rule: Rule::IfAbsent, .. }, Some(_))
            | (Request::Put { rule: Rule::IfPresent, .. } | Request::Extend { .. }, None) => {
                Answer::NotStored
            }
            (Request::Put { rule: Rule::IfCas(cas), .. }, Some((_, own))) if own != *cas => {
                Answer::Exists
            }
            (Request::Put { rule: Rule::IfCas(_), .. }, None)
            | (Request::Get { .. } | Request::Count { .. } | Request::Delete { .. }, None) => {
                Answer::Missing
            }
            (Request::Put { value, .. }, _) => {
                self.store(value.clone());
                Answer::Done
            }
            (Request::Extend { value: more, .. }, Some((mut value, _))) => {
                value.extend(more);
                self.store(value);
                Answer::Done
            }
            (Request::Count { delta, .. }, Some((value, _))) => {
                match String::from_utf8(value).unwrap().parse::<u64>() {
                    Ok(number) => {
                        self.store((number + delta).to_string().into());
                        Answer::Number(number + delta)
                    }
                    Err(_) => Answer::NotANumber,
                }
            }
            (Request::Delete { .. } | Request::FlushAll, _) => {
                self.item = None;
                Answer::Done
            }
            (Request::Touch { .. }, _) => unreachable!("not drawn"),
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    let value = || prop::sample::select(vec!["1", "2", "a"]);
    prop_oneof![
        4 => Just(get()),
        3 => value().prop_map(|value| put(Rule::Always, value)),
        1 => value().prop_map(|value| put(Rule::IfAbsent, value)),
        1 => value().prop_map(|value| put(Rule::IfPresent, value)),
        2 => (value(), 1_u64..4).prop_map(|(value, cas)| put(Rule::IfCas(cas), value)),
        2 => value().prop_map(append),
        2 => (1_u64..3).prop_map(incr),
        2 => Just(delete()),
        1 => Just(Request::FlushAll),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let value = prop::sample::select(vec!["1", "2", "3", "a", "12", "21", "1a"]);
    prop_oneof![
        3 => Just(Answer::Done),
        3 => Just(Answer::Missing),
        3 => (value, 0_u64..4).prop_map(|(text, cas)| self::value(text, cas)),
        1 => Just(Answer::NotStored),
        1 => Just(Answer::Exists),
        1 => Just(Answer::NotANumber),
        1 => (1_u64..5).prop_map(Answer::Number),
    ]
}

/// What a client of a right cache may see: each request takes effect at a moment between its ends.
fn right_history(len: usize) -> impl Strategy<Value = Vec<Operation>> {
    // About as many at a time as there are clients in a load, however long it is.
    let span = 4 * len as u64;
    let one = (request(), 0..span, 0_u64..4, 0_u64..4, 0_u32..8, any::<bool>());
    prop::collection::vec(one, 1..=len).prop_map(|mut drawn| {
        drawn.sort_by_key(|&(_, moment, ..)| moment);
        let mut cache = Cache::default();
        let ended = drawn.into_iter().map(|(request, moment, before, after, luck, is_lost)| {
            let from = moment.saturating_sub(before);
            if luck == 0 && request != get() {
                if !is_lost {
                    cache.serve(&request);
                }
                return unknown(from, request);
            }
            let answer = cache.serve(&request);
            done(from, moment + after, request, answer)
        });
        ended.collect()
    })
}

/// The same with one answer changed.
fn tampered_history() -> impl Strategy<Value = Vec<Operation>> {
    (right_history(5), any::<prop::sample::Index>(), answer()).prop_map(
        |(mut operations, index, answer)| {
            let one = index.get_mut(&mut operations);
            if let Ended::Answered { answer: told, .. } = &mut one.ended {
                *told = answer;
            }
            operations
        },
    )
}

fn any_history() -> impl Strategy<Value = Vec<Operation>> {
    let one = (request(), prop::option::weighted(0.8, answer()), 0_u64..10, 0_u64..6);
    let one = one.prop_map(|(request, answer, from, len)| match answer {
        Some(answer) => done(from, from + len, request, answer),
        None => unknown(from, request),
    });
    prop::collection::vec(one, 1..=5)
}

/// A search that is too simple to be wrong: all orders of all subsets, all moments to forget.
mod brute_force {
    use super::*;

    pub(super) fn is_right(operations: &[Operation], may_vanish: bool) -> bool {
        let (answered, unknown): (Vec<_>, Vec<_>) =
            operations.iter().partition(|one| one.answer().is_some());
        (0_u32..1 << unknown.len()).any(|subset| {
            let mut chosen = answered.clone();
            chosen.extend(
                (0..unknown.len()).filter(|at| subset >> at & 1 == 1).map(|at| unknown[at]),
            );
            some_order(&mut Vec::new(), &chosen, &mut |order| {
                let masks = if may_vanish { 1_u32 << order.len() } else { 1 };
                (0..masks).any(|vanish| plays(order, vanish))
            })
        })
    }

    fn some_order<'a>(
        order: &mut Vec<&'a Operation>,
        left: &[&'a Operation],
        accept: &mut dyn FnMut(&[&Operation]) -> bool,
    ) -> bool {
        if left.is_empty() {
            return accept(order);
        }
        (0..left.len()).any(|at| {
            let next = left[at];
            if left.iter().any(|other| other.returned_ns() < next.invoked_ns) {
                return false;
            }
            let mut rest = left.to_vec();
            rest.remove(at);
            order.push(next);
            let found = some_order(order, &rest, accept);
            order.pop();
            found
        })
    }

    /// Whether a cache that forgets before the operations of `vanish` answers like that. Its cas numbers
    /// are found out as they are told.
    fn plays(order: &[&Operation], vanish: u32) -> bool {
        let mut value: Option<Vec<u8>> = None;
        // Of each write, in order; the last one's is that of the item.
        let mut cas: Vec<Option<u64>> = Vec::new();
        for (at, one) in order.iter().enumerate() {
            if vanish >> at & 1 == 1 {
                value = None;
            }
            let answer = one.answer();
            let right = match (&one.request, value.clone()) {
                (Request::Get { .. }, None) => answer == Some(&Answer::Missing),
                (Request::Get { .. }, Some(stored)) => match answer {
                    Some(Answer::Value { value, cas: told, .. }) => {
                        *value == stored && (*told == 0 || tell(&mut cas, *told))
                    }
                    _ => false,
                },
                (Request::Put { rule, value: new, .. }, stored) => {
                    let wanted = match (rule, stored) {
                        (Rule::Always, _) | (Rule::IfAbsent, None) | (Rule::IfPresent, Some(_)) => {
                            Answer::Done
                        }
                        (Rule::IfAbsent, Some(_)) | (Rule::IfPresent, None) => Answer::NotStored,
                        (Rule::IfCas(_), None) => Answer::Missing,
                        (Rule::IfCas(token), Some(_)) => {
                            match (answer, cas.last().copied().flatten()) {
                                (Some(Answer::Exists), Some(own)) if own == *token => {
                                    return false;
                                }
                                (Some(Answer::Exists), _) => Answer::Exists,
                                _ if tell(&mut cas, *token) => Answer::Done,
                                _ => return false,
                            }
                        }
                    };
                    if wanted == Answer::Done {
                        value = Some(new.clone());
                        cas.push(None);
                    }
                    fits(answer, &wanted)
                }
                (Request::Extend { .. }, None) => answer == Some(&Answer::NotStored),
                (Request::Extend { value: more, .. }, Some(stored)) => {
                    value = Some([stored, more.clone()].concat());
                    cas.push(None);
                    fits(answer, &Answer::Done)
                }
                (Request::Count { delta, .. }, Some(stored)) => {
                    match String::from_utf8(stored).unwrap().parse::<u64>() {
                        Ok(number) => {
                            value = Some((number + delta).to_string().into());
                            cas.push(None);
                            fits(answer, &Answer::Number(number + delta))
                        }
                        Err(_) => answer == Some(&Answer::NotANumber),
                    }
                }
                (Request::Delete { .. }, Some(_)) | (Request::FlushAll, _) => {
                    value = None;
                    fits(answer, &Answer::Done)
                }
                (Request::Count { .. } | Request::Delete { .. }, None) => {
                    answer == Some(&Answer::Missing)
                }
                (Request::Touch { .. }, _) => unreachable!("not drawn"),
            };
            if !right {
                return false;
            }
        }
        let told: Vec<u64> = cas.into_iter().flatten().collect();
        told.is_sorted_by(|one, next| one < next)
    }

    /// Whether the last write's cas may be `told`.
    fn tell(cas: &mut [Option<u64>], told: u64) -> bool {
        let last = cas.last_mut().expect("a value was written");
        *last.get_or_insert(told) == told
    }

    /// An operation of unknown outcome is in an order only if it did something.
    fn fits(answer: Option<&Answer>, wanted: &Answer) -> bool {
        match answer {
            Some(answer) => answer == wanted,
            None => matches!(wanted, Answer::Done | Answer::Number(_)),
        }
    }
}

fn agree(operations: &[Operation]) -> Result<(), TestCaseError> {
    for may_vanish in [false, true] {
        let rules = Rules { may_vanish, ..Rules::default() };
        let wanted = brute_force::is_right(operations, may_vanish);
        prop_assert_eq!(is_right_under(operations, rules), wanted, "may vanish: {}", may_vanish);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_500) })]

    #[test]
    fn it_agrees_with_all_orders_tried_on_any_history(operations in any_history()) {
        agree(&operations)?;
    }

    #[test]
    fn it_agrees_with_all_orders_tried_on_nearly_right_histories(operations in tampered_history()) {
        agree(&operations)?;
    }

    #[test]
    fn what_a_right_cache_answers_is_right(operations in right_history(40)) {
        prop_assert!(is_right(&operations));
        prop_assert!(is_right_under(&operations, FORGETFUL));
    }

    #[test]
    fn an_explanation_is_a_violation_itself(operations in tampered_history()) {
        if let Verdict::Violation(violation) = check_key(&operations, Rules::default()) {
            prop_assert!(!brute_force::is_right(&violation.operations, false), "{}", violation);
        }
    }
}
