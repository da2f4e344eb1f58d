//! Facts of each way of balancing, and what all of them hold to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::test_time::start;

const MS: Duration = Duration::from_millis(1);

fn equals(count: usize) -> Vec<Endpoint> {
    vec![Endpoint::default(); count]
}

fn weights(weights: &[u32]) -> Vec<Endpoint> {
    weights.iter().map(|&weight| Endpoint { weight, ..Endpoint::default() }).collect()
}

fn balancer(strategy: Balance, endpoints: &[Endpoint]) -> Balancer {
    let limits = Limits { in_flight: 2, ..Limits::default() };
    Balancer { turn: 0, ..Balancer::new(strategy, limits, "", endpoints, 1) }
}

/// Picks and leaves the request under way.
fn send(balancer: &mut Balancer, now: Instant) -> usize {
    let picked = balancer.pick(now, |_| true).unwrap();
    balancer.started(picked);
    picked
}

fn send_many(balancer: &mut Balancer, count: usize) -> Vec<usize> {
    (0..count).map(|_| send(balancer, start())).collect()
}

/// Picks whose requests end before the next.
fn picks(balancer: &mut Balancer, count: usize) -> Vec<usize> {
    (0..count).map(|_| balancer.pick(start(), |_| true).unwrap()).collect()
}

/// Sends a request each millisecond for 20 seconds to servers that answer after so many milliseconds, one at a time;
/// returns how many went to each.
fn simulate(strategy: Balance, service_ms: &[u32]) -> Vec<u32> {
    let mut balancer = Balancer::new(strategy, Limits::default(), "", &equals(service_ms.len()), 7);
    let mut free_at = vec![start(); service_ms.len()];
    let mut sent = vec![0; service_ms.len()];
    let mut under_way = BinaryHeap::new();
    for now in (0..20_000).map(|ms| start() + ms * MS) {
        while let Some(&Reverse((end, began, index))) = under_way.peek()
            && end <= now
        {
            under_way.pop();
            balancer.finished(index, end, end - began);
        }
        let index = balancer.pick(now, |_| true).unwrap();
        balancer.started(index);
        sent[index] += 1;
        free_at[index] = free_at[index].max(now) + service_ms[index] * MS;
        under_way.push(Reverse((free_at[index], now, index)));
    }
    sent
}

#[test]
fn strategies_are_called_by_name() {
    for (name, strategy) in Balance::ALL {
        assert_eq!(name.parse(), Ok(strategy));
        assert_eq!(strategy.name(), name);
    }
    assert!("fastest".parse::<Balance>().is_err());
}

#[test]
fn round_robin_asks_each_in_turn() {
    assert_eq!(picks(&mut balancer(Balance::RoundRobin, &equals(3)), 5), [0, 1, 2, 0, 1]);
}

#[test]
fn round_robin_leaves_out_who_may_not_be_asked() {
    let mut balancer = balancer(Balance::RoundRobin, &equals(3));
    let picked: Vec<_> = (0..4).map(|_| balancer.pick(start(), |index| index != 1)).collect();
    assert_eq!(picked, [Some(0), Some(2), Some(0), Some(2)]);
}

#[test]
fn weighted_spreads_as_nginx_does() {
    let mut balancer = balancer(Balance::Weighted, &weights(&[5, 1, 1]));
    assert_eq!(picks(&mut balancer, 7), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn least_loaded_asks_who_has_the_fewest_under_way_for_its_weight() {
    let mut balancer = balancer(Balance::LeastLoaded, &weights(&[1, 3]));
    let sent = send_many(&mut balancer, 8);
    assert_eq!(sent.iter().filter(|&&index| index == 1).count(), 6);
}

#[test]
fn what_finished_counts_no_more() {
    let mut balancer = balancer(Balance::LeastLoaded, &equals(2));
    assert_eq!(send_many(&mut balancer, 2), [0, 1]);
    balancer.finished(1, start(), MS);
    assert_eq!((balancer.in_flight(0), balancer.in_flight(1)), (1, 0));
    assert_eq!(send(&mut balancer, start()), 1);
}

#[test]
fn a_newcomer_gets_little_at_first_and_its_share_at_last() {
    let share_at = |age: Duration| {
        let mut balancer = balancer(Balance::SlowStart, &equals(3));
        balancer.add(&Endpoint::default(), start());
        let sent: Vec<_> = (0..400).map(|_| send(&mut balancer, start() + age)).collect();
        sent.iter().filter(|&&index| index == 3).count()
    };
    let shares = [Duration::ZERO, Duration::from_secs(15), Duration::from_secs(30)].map(share_at);
    assert!(shares[0] <= 2, "{shares:?}");
    assert!((50..70).contains(&shares[1]), "{shares:?}");
    assert!((99..102).contains(&shares[2]), "{shares:?}");
}

#[test]
fn who_returned_is_spared_like_a_newcomer() {
    let mut balancer = balancer(Balance::SlowStart, &equals(2));
    balancer.returned(0, start());
    assert_eq!(send_many(&mut balancer, 20), [1; 20]);
}

#[test]
fn utilisation_asks_nobody_above_the_limit_while_somebody_is_below() {
    let mut balancer = balancer(Balance::Utilisation, &weights(&[1, 4]));
    let sent = send_many(&mut balancer, 10);
    assert_eq!(sent.iter().filter(|&&index| index == 0).count(), 2);
    assert_eq!(sent.iter().filter(|&&index| index == 1).count(), 8);
    // All are full, and somebody is asked all the same.
    send(&mut balancer, start());
}

#[test]
fn cascade_fills_the_first_then_the_next() {
    let mut balancer = balancer(Balance::Cascade, &equals(3));
    assert_eq!(send_many(&mut balancer, 6), [0, 0, 1, 1, 2, 2]);
    balancer.finished(1, start(), MS);
    assert_eq!(send(&mut balancer, start()), 1);
    assert_eq!(send_many(&mut balancer, 3).len(), 3);
}

#[test]
fn two_choices_never_ask_the_more_loaded_of_two() {
    let mut balancer = balancer(Balance::TwoChoices, &equals(2));
    balancer.started(0);
    assert_eq!(picks(&mut balancer, 50), [1; 50]);
}

#[test]
fn two_choices_stay_much_more_even_than_chance() {
    let mut balancer = balancer(Balance::TwoChoices, &equals(100));
    send_many(&mut balancer, 10_000);
    let most = (0..100).map(|index| balancer.in_flight(index)).max();
    // By chance the fullest of 100 with 100 each would have some 125.
    assert!(most <= Some(104), "{most:?}");
}

#[test]
fn the_own_zone_is_asked_until_it_is_full_or_gone() {
    let zones = |names: &[&str]| -> Vec<_> {
        names.iter().map(|&zone| Endpoint { weight: 1, zone: zone.into() }).collect()
    };
    for (name, strategy) in Balance::ALL {
        let limits = Limits { in_flight: 2, ..Limits::default() };
        let mut balancer = Balancer::new(strategy, limits, "a", &zones(&["b", "a", "b", "a"]), 3);
        let mut sent = send_many(&mut balancer, 4);
        sent.sort_unstable();
        assert!(sent.iter().all(|index| [1, 3].contains(index)), "{name}: {sent:?}");
        if strategy == Balance::LeastLoaded {
            assert!([0, 2].contains(&send(&mut balancer, start())), "spills over");
        }
        let elsewhere = balancer.pick(start(), |index| index % 2 == 0);
        assert!(elsewhere.is_some_and(|index| index % 2 == 0), "{name}");
    }
}

#[test]
fn peak_ewma_believes_at_once_who_became_slow_and_slowly_who_recovered() {
    let decay = Duration::from_secs(10);
    let mut latency = PeakEwma::default();
    latency.observe(start(), MS, decay);
    latency.observe(start() + MS, 100 * MS, decay);
    assert!((latency.expected_wait(start() + MS, 0, decay) - 0.1).abs() < 1e-9);
    latency.observe(start() + Duration::from_secs(1), MS, decay);
    assert!(latency.expected_wait(start() + Duration::from_secs(1), 0, decay) > 0.08);
}

#[test]
fn peak_ewma_tries_a_slow_server_again_after_a_while() {
    let mut balancer = balancer(Balance::Latency, &equals(2));
    for (index, latency) in [(0, 50 * MS), (1, MS)] {
        balancer.started(index);
        balancer.finished(index, start(), latency);
    }
    let next_after = |balancer: &mut Balancer, after: u64| {
        let now = start() + Duration::from_secs(after);
        // The fast one is still in use.
        balancer.started(1);
        balancer.finished(1, now, MS);
        balancer.pick(now, |_| true)
    };
    assert_eq!(next_after(&mut balancer, 1), Some(1));
    assert_eq!(next_after(&mut balancer, 60), Some(0));
}

#[test]
fn a_slow_server_gets_less_by_latency_than_by_turns() {
    let by_turns = simulate(Balance::RoundRobin, &[2, 2, 2, 20]);
    let by_latency = simulate(Balance::Latency, &[2, 2, 2, 20]);
    let by_load = simulate(Balance::LeastLoaded, &[2, 2, 2, 20]);
    assert_eq!(by_turns, [5_000; 4]);
    // Its capacity is 1,000 requests in this time.
    assert!(by_latency[3] < 500, "{by_latency:?}");
    assert!(by_load[3] < 1_100, "{by_load:?}");
}

#[test]
fn fast_servers_share_evenly_by_latency() {
    let sent = simulate(Balance::Latency, &[3, 3, 3, 3]);
    assert!(sent.iter().all(|&count| (4_000..6_000).contains(&count)), "{sent:?}");
}

#[derive(Clone, Debug)]
enum Event {
    Pick(u8),
    Finish(usize),
    Return(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<u8>().prop_map(Event::Pick),
        any::<usize>().prop_map(Event::Finish),
        (0usize..8).prop_map(Event::Return),
    ]
}

proptest! {
    #[test]
    fn somebody_is_picked_if_anybody_may_be_and_never_who_may_not(
        strategy in 0usize..Balance::ALL.len(),
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 0..200),
    ) {
        let endpoints: Vec<_> = (0..8)
            .map(|index| Endpoint { weight: index, zone: if index < 3 { "a" } else { "b" }.into() })
            .collect();
        let (_, strategy) = Balance::ALL[strategy];
        let limits = Limits { in_flight: 1, ..Limits::default() };
        let mut balancer = Balancer::new(strategy, limits, "a", &endpoints, seed);
        let mut under_way = Vec::new();
        let mut now = start();
        for event in events {
            now += MS;
            match event {
                Event::Pick(allowed) => {
                    let picked = balancer.pick(now, |index| allowed >> index & 1 == 1);
                    prop_assert_eq!(picked.is_some(), allowed != 0);
                    if let Some(index) = picked {
                        prop_assert!(allowed >> index & 1 == 1);
                        balancer.started(index);
                        under_way.push(index);
                    }
                }
                Event::Finish(which) if !under_way.is_empty() => {
                    let index = under_way.swap_remove(which % under_way.len());
                    balancer.finished(index, now, MS);
                }
                Event::Finish(_) => {}
                Event::Return(index) => balancer.returned(index, now),
            }
            for index in 0..8 {
                let expected = under_way.iter().filter(|&&other| other == index).count();
                prop_assert_eq!(balancer.in_flight(index) as usize, expected);
            }
        }
    }
}
