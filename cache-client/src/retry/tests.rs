//! Facts of each part, and each state machine against a model too simple to be wrong.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::test_time::start;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn random() -> Random {
    Random::new(1)
}

fn rich() -> Budget {
    Budget::new(BudgetConfig { per_second_min: 1000, ..BudgetConfig::default() })
}

mod attempts {
    use super::*;

    fn attempts(class: Class) -> Attempts {
        Attempts::new(RetryConfig::default(), class, start() + SECOND)
    }

    fn after(class: Class, failure: Failure) -> Next {
        attempts(class).failed(start(), failure, &mut rich(), &mut random())
    }

    #[test]
    fn what_was_not_sent_is_tried_elsewhere_at_once_whatever_it_is() {
        for class in [Class::Read, Class::Idempotent, Class::Conditional, Class::Accumulating] {
            let expected = Next::Again { wait: Duration::ZERO, elsewhere: true };
            assert_eq!(after(class, Failure::NotSent), expected);
        }
    }

    #[test]
    fn what_was_refused_is_tried_again_later_whatever_it_is() {
        for class in [Class::Read, Class::Idempotent, Class::Conditional, Class::Accumulating] {
            let next = after(class, Failure::Refused);
            assert!(matches!(next, Next::Again { wait, elsewhere: false } if wait <= 10 * MS));
        }
    }

    #[test]
    fn what_may_have_been_done_is_tried_again_only_if_twice_is_as_good_as_once() {
        for class in [Class::Read, Class::Idempotent] {
            assert!(matches!(after(class, Failure::Unknown), Next::Again { .. }));
        }
        for class in [Class::Conditional, Class::Accumulating] {
            assert_eq!(after(class, Failure::Unknown), Next::Stop(Stop::Unsafe));
        }
    }

    #[test]
    fn what_would_fail_again_is_not_tried_again() {
        assert_eq!(after(Class::Read, Failure::Rejected), Next::Stop(Stop::Unsafe));
    }

    #[test]
    fn a_call_is_tried_so_often_and_no_more() {
        let mut call = attempts(Class::Read);
        let mut fail = || call.failed(start(), Failure::Unknown, &mut rich(), &mut random());
        assert!(matches!(fail(), Next::Again { .. }));
        assert!(matches!(fail(), Next::Again { .. }));
        assert_eq!(fail(), Next::Stop(Stop::Attempts));
        assert_eq!(call.made(), 3);
    }

    #[test]
    fn nothing_is_tried_again_past_the_deadline() {
        let mut call = attempts(Class::Read);
        let next = call.failed(start() + SECOND, Failure::NotSent, &mut rich(), &mut random());
        assert_eq!(next, Next::Stop(Stop::Deadline));
    }

    #[test]
    fn nothing_is_tried_again_beyond_the_budget_and_what_stops_costs_nothing() {
        let config = BudgetConfig { ratio: 0.0, per_second_min: 0, ..BudgetConfig::default() };
        let mut poor = Budget::new(config);
        let next =
            attempts(Class::Read).failed(start(), Failure::NotSent, &mut poor, &mut random());
        assert_eq!(next, Next::Stop(Stop::Budget));
        let mut budget = rich();
        let left = budget.left(start());
        attempts(Class::Accumulating).failed(start(), Failure::Unknown, &mut budget, &mut random());
        assert_eq!(budget.left(start()), left);
    }
}

mod backoff {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_greatest() {
        let backoff = Backoff { first: 10 * MS, max: 55 * MS };
        let bounds: Vec<_> = (0..5).map(|before| backoff.bound(before).as_millis()).collect();
        assert_eq!(bounds, [10, 20, 40, 55, 55]);
        assert_eq!(backoff.bound(u32::MAX), 55 * MS);
    }

    #[test]
    fn waits_are_spread_over_all_of_the_bound() {
        let backoff = Backoff { first: 100 * MS, max: SECOND };
        let mut random = random();
        let waits: Vec<_> = (0..1000).map(|_| backoff.wait(0, &mut random)).collect();
        assert!(waits.iter().all(|wait| *wait < 100 * MS));
        for tenth in 0..10u32 {
            let low = tenth * 10 * MS;
            let count = waits.iter().filter(|wait| (low..low + 10 * MS).contains(*wait)).count();
            assert!((60..140).contains(&count), "{count} in tenth {tenth}");
        }
    }
}

mod budget {
    use super::*;

    const CONFIG: BudgetConfig =
        BudgetConfig { ratio: 0.2, per_second_min: 1, window: Duration::from_secs(10) };

    #[test]
    fn a_fifth_of_the_requests_and_the_reserve_may_be_tried_again() {
        let mut budget = Budget::new(CONFIG);
        (0..100).for_each(|_| budget.deposit(start()));
        assert_eq!(budget.left(start()), 30);
        let granted = (0..100).filter(|_| budget.withdraw(start())).count();
        assert_eq!(granted, 30);
    }

    #[test]
    fn requests_and_retries_of_long_ago_do_not_count() {
        let mut budget = Budget::new(CONFIG);
        (0..100).for_each(|_| budget.deposit(start()));
        assert_eq!(budget.left(start() + 8 * SECOND), 30);
        assert_eq!(budget.left(start() + 10 * SECOND), 10);
        while budget.withdraw(start() + 10 * SECOND) {}
        assert_eq!(budget.left(start() + 20 * SECOND), 10);
    }

    #[test]
    fn when_all_fails_load_grows_by_a_fifth_at_most() {
        // A thousand requests a second, every one of them fails and wants to be tried again.
        let mut budget = Budget::new(CONFIG);
        let mut retries = 0u32;
        for ms in 0..60_000 {
            budget.deposit(start() + ms * MS);
            retries += u32::from(budget.withdraw(start() + ms * MS));
        }
        assert!((11_900..12_080).contains(&retries), "{retries} of 12,000 and the reserve");
    }

    proptest! {
        #[test]
        fn a_budget_is_the_sum_of_what_happened_in_its_ten_slices(
            events in vec((0u32..1500, any::<bool>()), 0..200),
        ) {
            let mut budget = Budget::new(CONFIG);
            // (slice, what it changed), in millionths of a retry.
            let mut model: Vec<(u128, i64)> = Vec::new();
            let mut now = start();
            for (wait_ms, is_request) in events {
                now += if model.is_empty() { Duration::ZERO } else { wait_ms * MS };
                let slice = (now - start()).as_millis() / 1000;
                let recent = model.iter().filter(|(at, _)| at + 10 > slice);
                let balance = 10_000_000 + recent.map(|(_, change)| change).sum::<i64>();
                if is_request {
                    budget.deposit(now);
                    model.push((slice, 200_000));
                } else {
                    let expected = balance >= 1_000_000;
                    prop_assert_eq!(budget.withdraw(now), expected);
                    model.push((slice, if expected { -1_000_000 } else { 0 }));
                }
            }
        }
    }
}

mod hedge {
    use super::*;

    fn seen(latencies: impl IntoIterator<Item = Duration>) -> Hedge {
        let mut hedge = Hedge::new(HedgeConfig::default());
        latencies.into_iter().for_each(|latency| hedge.observe(start(), latency));
        hedge
    }

    #[test]
    fn without_enough_answers_nothing_is_hedged() {
        assert_eq!(seen(vec![MS; 99]).begin(start()), None);
        assert!(seen(vec![MS; 100]).begin(start()).is_some());
    }

    #[test]
    fn the_delay_is_the_latency_that_most_answers_stay_below() {
        let latencies = (1..=1000).map(|n| n * MS);
        let delay = seen(latencies).begin(start()).unwrap();
        assert!((950 * MS..1070 * MS).contains(&delay), "{delay:?}");
    }

    #[test]
    fn the_delay_is_no_less_than_the_least() {
        let delay = seen(vec![Duration::from_micros(50); 200]).begin(start());
        assert_eq!(delay, Some(MS));
    }

    #[test]
    fn latencies_of_long_ago_do_not_count() {
        let mut hedge = seen(vec![100 * MS; 200]);
        let at = |seconds| start() + Duration::from_secs(seconds);
        assert!(hedge.begin(at(16)).unwrap() >= 100 * MS);
        (0..200).for_each(|_| hedge.observe(at(16), 2 * MS));
        assert!(hedge.begin(at(32)).unwrap() < 3 * MS);
        assert_eq!(hedge.begin(at(200)), None);
    }

    #[test]
    fn when_everything_is_slow_a_twentieth_is_sent_twice() {
        let mut hedge = seen(vec![MS; 200]);
        let twice = (0..2000)
            .filter(|_| {
                hedge.begin(start());
                hedge.may_send(start())
            })
            .count();
        assert_eq!(twice, 100);
    }

    #[test]
    fn hedging_cuts_the_tail_of_a_server_that_sometimes_hangs() {
        // One answer in fifty takes 100 ms, the others 1 to 2.
        let mut random = random();
        let mut draw = move || match random.below(50) {
            0 => 100 * MS,
            _ => MS + MS.mul_f64(random.unit()),
        };
        let mut hedge = Hedge::new(HedgeConfig::default());
        let (mut plain, mut hedged, mut sent) = (Vec::new(), Vec::new(), 0);
        for ms in 0..20_000 {
            let now = start() + ms * MS;
            let (first, second) = (draw(), draw());
            let delay = hedge.begin(now).filter(|delay| *delay < first && hedge.may_send(now));
            sent += u32::from(delay.is_some());
            plain.push(first);
            let answered = delay.map_or(first, |delay| first.min(delay + second));
            hedge.observe(now, answered);
            hedged.push(answered);
        }
        let p99 = |latencies: &mut Vec<Duration>| {
            latencies.sort_unstable();
            latencies[latencies.len() * 99 / 100]
        };
        assert_eq!(p99(&mut plain), 100 * MS);
        assert!(p99(&mut hedged) < 10 * MS);
        assert!(sent <= 20_000 / 20, "{sent} second requests");
    }
}

mod breaker {
    use super::*;

    fn config() -> BreakerConfig {
        BreakerConfig {
            failures_max: 3,
            probes_max: 2,
            probes_passed: 2,
            ..BreakerConfig::default()
        }
    }

    fn granted(breaker: &mut Breaker, now: Instant) -> Permit {
        match breaker.admit(now) {
            Admission::Granted(permit) => permit,
            refused @ Admission::Refused { .. } => panic!("{refused:?}"),
        }
    }

    fn fail(breaker: &mut Breaker, now: Instant) {
        let permit = granted(breaker, now);
        breaker.failed(now, permit, &mut random());
    }

    fn succeed(breaker: &mut Breaker, now: Instant) {
        let permit = granted(breaker, now);
        breaker.succeeded(now, permit);
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(config());
        (0..3).for_each(|_| fail(&mut breaker, start()));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let mut breaker = Breaker::new(config());
        fail(&mut breaker, start());
        fail(&mut breaker, start());
        succeed(&mut breaker, start());
        fail(&mut breaker, start());
        fail(&mut breaker, start());
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, start());
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(matches!(breaker.admit(start()), Admission::Refused { until: Some(_) }));
        assert!(!breaker.would_admit(start()));
    }

    #[test]
    fn a_share_of_failures_opens_it_too() {
        let mut breaker = Breaker::new(config());
        for _ in 0..10 {
            assert_eq!(breaker.state(), BreakerState::Closed);
            succeed(&mut breaker, start());
            fail(&mut breaker, start());
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn failures_of_an_earlier_window_do_not_count() {
        let mut breaker = Breaker::new(config());
        // Half of the requests fail, but never twenty requests are in one window of ten seconds.
        for seconds in 0..100u32 {
            let now = start() + 2 * seconds * SECOND;
            succeed(&mut breaker, now);
            fail(&mut breaker, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn after_a_pause_a_few_probes_pass_and_their_success_closes_it() {
        let mut breaker = opened();
        let later = start() + SECOND;
        let first = granted(&mut breaker, later);
        let second = granted(&mut breaker, later);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(later), Admission::Refused { until: None });
        breaker.succeeded(later, first);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.succeeded(later, second);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_longer() {
        let mut breaker = opened();
        let mut pauses = Vec::new();
        let mut now = start();
        for _ in 0..10 {
            let Admission::Refused { until: Some(until) } = breaker.admit(now) else { panic!() };
            pauses.push(until - now);
            now = until;
            fail(&mut breaker, now);
        }
        for (pause, bound_ms) in pauses.iter().zip([500, 1000, 2000, 4000, 8000, 16_000, 30_000]) {
            assert!((bound_ms * MS / 2..=bound_ms * MS).contains(pause), "{pauses:?}");
        }
        assert!(*pauses.last().unwrap() <= 30 * SECOND);
    }

    #[test]
    fn a_probe_given_up_makes_room_for_another() {
        let mut breaker = opened();
        let later = start() + SECOND;
        let (first, _second) = (granted(&mut breaker, later), granted(&mut breaker, later));
        breaker.cancelled(first);
        assert!(breaker.would_admit(later));
    }

    #[test]
    fn answers_to_requests_of_before_change_nothing() {
        let mut breaker = Breaker::new(config());
        let (late_success, late_failure) =
            (granted(&mut breaker, start()), granted(&mut breaker, start()));
        (0..3).for_each(|_| fail(&mut breaker, start()));
        breaker.succeeded(start(), late_success);
        assert_eq!(breaker.state(), BreakerState::Open);
        let later = start() + SECOND;
        (0..2).for_each(|_| succeed(&mut breaker, later));
        breaker.failed(later, late_failure, &mut random());
        fail(&mut breaker, later);
        fail(&mut breaker, later);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Ask,
        End { which: usize, how: u8 },
    }

    fn event() -> impl Strategy<Value = (u32, Event)> {
        let end = (any::<usize>(), 0u8..3).prop_map(|(which, how)| Event::End { which, how });
        (0u32..400, prop_oneof![Just(Event::Ask), end])
    }

    /// What a breaker without a share of failures must do, from all that happened since its state began.
    enum Model {
        Closed { results: Vec<bool> },
        Open,
        HalfOpen { under_way: u32, passed: u32 },
    }

    proptest! {
        #[test]
        fn a_breaker_does_what_its_model_does(events in vec(event(), 0..300), seed in any::<u64>()) {
            let config = BreakerConfig { requests_min: u32::MAX, ..config() };
            let (mut breaker, mut random) = (Breaker::new(config), Random::new(seed));
            let mut model = Model::Closed { results: Vec::new() };
            let (mut now, mut opened_at) = (start(), start());
            // Permits with the number of the model's state that they are of.
            let (mut permits, mut period) = (Vec::new(), 0);
            for (wait_ms, event) in events {
                now += wait_ms * MS;
                match event {
                    Event::Ask => {
                        let would = breaker.would_admit(now);
                        let admission = breaker.admit(now);
                        prop_assert_eq!(would, matches!(admission, Admission::Granted(_)));
                        if let (Model::Open, true) = (&model, would) {
                            prop_assert!(now - opened_at >= 250 * MS, "half of the least bound");
                            (model, period) = (Model::HalfOpen { under_way: 0, passed: 0 }, period + 1);
                        }
                        match (&mut model, admission) {
                            (Model::Closed { .. }, Admission::Granted(permit)) => {
                                permits.push((period, permit));
                            }
                            (Model::HalfOpen { under_way, .. }, Admission::Granted(permit)) => {
                                prop_assert!(*under_way < 2);
                                *under_way += 1;
                                permits.push((period, permit));
                            }
                            (Model::HalfOpen { under_way, .. }, Admission::Refused { until }) => {
                                prop_assert_eq!((*under_way, until), (2, None));
                            }
                            (Model::Open, Admission::Refused { until }) => {
                                prop_assert!(until.is_some_and(|until| until > now));
                            }
                            (Model::Closed { .. }, Admission::Refused { .. })
                            | (Model::Open, Admission::Granted(_)) => prop_assert!(false),
                        }
                    }
                    Event::End { which, how } if !permits.is_empty() => {
                        let (of, permit) = permits.swap_remove(which % permits.len());
                        match how {
                            0 => breaker.succeeded(now, permit),
                            1 => breaker.failed(now, permit, &mut random),
                            _ => breaker.cancelled(permit),
                        }
                        if of != period {
                            continue;
                        }
                        let mut next = None;
                        match (&mut model, how) {
                            (Model::Closed { results }, 0 | 1) => {
                                results.push(how == 0);
                                if results.ends_with(&[false; 3]) {
                                    next = Some(Model::Open);
                                }
                            }
                            (Model::HalfOpen { under_way, passed }, 0) => {
                                (*under_way, *passed) = (*under_way - 1, *passed + 1);
                                if *passed == 2 {
                                    next = Some(Model::Closed { results: Vec::new() });
                                }
                            }
                            (Model::HalfOpen { .. }, 1) => next = Some(Model::Open),
                            (Model::HalfOpen { under_way, .. }, _) => *under_way -= 1,
                            _ => {}
                        }
                        if let Some(next) = next {
                            (model, period, opened_at) = (next, period + 1, now);
                        }
                    }
                    Event::End { .. } => {}
                }
                let expected = match model {
                    Model::Closed { .. } => BreakerState::Closed,
                    Model::Open => BreakerState::Open,
                    Model::HalfOpen { .. } => BreakerState::HalfOpen,
                };
                prop_assert_eq!(breaker.state(), expected);
            }
        }
    }
}

mod outliers {
    use super::*;

    fn fail(outliers: &mut Outliers, now: Instant, index: usize) -> bool {
        (0..5).any(|_| outliers.record(now, index, false))
    }

    fn out(outliers: &Outliers, now: Instant) -> Vec<usize> {
        outliers.ejected(now).collect()
    }

    #[test]
    fn failures_in_a_row_eject_a_node_for_a_while() {
        let mut outliers = Outliers::new(OutlierConfig::default(), 3);
        assert!(fail(&mut outliers, start(), 1));
        assert_eq!(out(&outliers, start()), [1]);
        assert_eq!(outliers.share(start() + 29 * SECOND, 1), 0.0);
        assert_eq!(out(&outliers, start() + 30 * SECOND), [0usize; 0]);
    }

    #[test]
    fn a_node_that_is_back_takes_more_and_more() {
        let mut outliers = Outliers::new(OutlierConfig::default(), 3);
        fail(&mut outliers, start(), 1);
        let share = |seconds: u32| outliers.share(start() + seconds * SECOND, 1);
        let shares = [30, 45, 59, 60].map(share);
        assert!((shares[0] - 0.1).abs() < 1e-9 && (shares[1] - 0.55).abs() < 1e-9, "{shares:?}");
        assert!(shares[2] < 1.0 && shares[3] == 1.0, "{shares:?}");
        assert!(outliers.takes(start() + 45 * SECOND, 1, 0.5));
        assert!(!outliers.takes(start() + 45 * SECOND, 1, 0.6));
    }

    #[test]
    fn who_fails_again_is_out_for_longer_and_good_conduct_makes_up_for_it() {
        let mut outliers = Outliers::new(OutlierConfig::default(), 3);
        fail(&mut outliers, start(), 1);
        let again = start() + 31 * SECOND;
        outliers.sweep(again);
        assert!(fail(&mut outliers, again, 1));
        assert_eq!(out(&outliers, again + 59 * SECOND), [1]);
        assert_eq!(out(&outliers, again + 60 * SECOND), [0usize; 0]);
        // Two ejections are forgotten after 60 s and another 30 s.
        let mut now = again + 60 * SECOND;
        for _ in 0..200 {
            now += SECOND;
            outliers.sweep(now);
        }
        assert!(fail(&mut outliers, now, 1));
        assert_eq!(out(&outliers, now + 30 * SECOND), [0usize; 0]);
    }

    #[test]
    fn a_node_that_does_much_worse_than_the_others_is_ejected() {
        let mut outliers = Outliers::new(OutlierConfig::default(), 6);
        for n in 0..200 {
            for index in 0..6 {
                // Two in five fail, never more in a row.
                let is_success = index != 4 || n % 5 < 3;
                outliers.record(start(), index, is_success);
            }
        }
        assert_eq!(out(&outliers, start()), [0usize; 0]);
        outliers.sweep(start() + 10 * SECOND);
        assert_eq!(out(&outliers, start() + 10 * SECOND), [4]);
    }

    #[test]
    fn nodes_that_do_equally_badly_stay() {
        let mut outliers = Outliers::new(OutlierConfig::default(), 6);
        for n in 0..200 {
            for index in 0..6 {
                outliers.record(start(), index, n % 2 == 0);
            }
        }
        outliers.sweep(start() + 10 * SECOND);
        assert_eq!(out(&outliers, start() + 10 * SECOND), [0usize; 0]);
    }

    #[test]
    fn not_more_than_a_part_is_out_at_once() {
        let mut outliers = Outliers::new(OutlierConfig::default(), 6);
        let ejected: Vec<_> = (0..6).filter(|&index| fail(&mut outliers, start(), index)).collect();
        assert_eq!(ejected, [0, 1]);
        let mut pair = Outliers::new(OutlierConfig::default(), 2);
        let ejected: Vec<_> = (0..2).filter(|&index| fail(&mut pair, start(), index)).collect();
        assert_eq!(ejected, [0]);
    }

    #[test]
    fn the_only_node_stays() {
        let mut outliers = Outliers::new(OutlierConfig::default(), 1);
        assert!(!fail(&mut outliers, start(), 0));
        assert_eq!(outliers.share(start(), 0), 1.0);
    }

    proptest! {
        #[test]
        fn some_node_is_always_in_and_who_does_well_takes_ever_more(
            events in vec((0u32..5000, 0usize..5, any::<bool>(), 1u32..8), 0..300),
        ) {
            let config = OutlierConfig { requests_min: 10, ..OutlierConfig::default() };
            let mut outliers = Outliers::new(config, 5);
            // By node: the share last seen, and the failures in a row.
            let mut model = [(1.0f64, 0u32); 5];
            let mut now = start();
            for (wait_ms, index, is_success, times) in events {
                now += wait_ms * MS;
                for _ in 0..times {
                    let was_out = outliers.share(now, index) == 0.0;
                    let is_ejected = outliers.record(now, index, is_success);
                    model[index].1 = if is_success { 0 } else { model[index].1 + 1 };
                    prop_assert!(!is_ejected || (!was_out && model[index].1 >= 5));
                }
                let out: Vec<_> = outliers.ejected(now).collect();
                prop_assert!(out.len() <= 1, "a third of five is one");
                for (index, (seen, _)) in model.iter_mut().enumerate() {
                    let share = outliers.share(now, index);
                    prop_assert!((0.0..=1.0).contains(&share));
                    prop_assert_eq!(share == 0.0, out.contains(&index));
                    prop_assert!(share == 0.0 || share >= *seen, "{share} after {seen}");
                    *seen = share;
                }
            }
        }
    }
}

mod refresh {
    use super::*;

    fn known_at_start() -> Refresh {
        let mut refresh = Refresh::new(RefreshConfig::default());
        assert!(refresh.ask(start()));
        refresh.answered(start(), None, &mut random());
        refresh
    }

    #[test]
    fn the_first_question_is_due_at_once_and_asked_once() {
        let mut refresh = Refresh::new(RefreshConfig::default());
        assert!(refresh.ask(start()));
        assert!(!refresh.ask(start()));
    }

    #[test]
    fn an_answer_is_good_for_its_lifetime_or_a_little_less() {
        for (lifetime, most) in [(None, 30), (Some(60 * SECOND), 60), (Some(9999 * SECOND), 300)] {
            let mut refresh = Refresh::new(RefreshConfig::default());
            refresh.ask(start());
            refresh.answered(start(), lifetime, &mut random());
            let due = refresh.due_at().unwrap() - start();
            assert!((most * SECOND * 9 / 10..=most * SECOND).contains(&due), "{due:?}");
        }
    }

    #[test]
    fn an_answer_without_any_lifetime_is_not_asked_for_in_a_loop() {
        let mut refresh = Refresh::new(RefreshConfig::default());
        refresh.ask(start());
        refresh.answered(start(), Some(Duration::ZERO), &mut random());
        assert_eq!(refresh.due_at(), Some(start() + SECOND));
    }

    #[test]
    fn whoever_loses_a_connection_has_it_asked_at_once() {
        let mut refresh = known_at_start();
        let now = start() + 5 * SECOND;
        assert!(!refresh.ask(now));
        refresh.lost(now);
        assert!(refresh.ask(now));
    }

    #[test]
    fn connections_that_break_together_have_it_asked_once() {
        let mut refresh = known_at_start();
        let lost_at = |ms: u32| start() + 5 * SECOND + ms * MS;
        let mut asked = 0;
        for ms in 0..900 {
            refresh.lost(lost_at(ms));
            if refresh.ask(lost_at(ms)) {
                asked += 1;
                refresh.answered(lost_at(ms), None, &mut random());
            }
        }
        assert_eq!(asked, 1);
        assert_eq!(refresh.due_at(), Some(lost_at(1000)));
    }

    #[test]
    fn what_was_lost_while_it_was_asked_is_asked_for_again() {
        let mut refresh = Refresh::new(RefreshConfig::default());
        refresh.ask(start());
        refresh.lost(start() + 100 * MS);
        refresh.answered(start() + 200 * MS, None, &mut random());
        assert_eq!(refresh.due_at(), Some(start() + SECOND));
    }

    #[test]
    fn questions_that_fail_are_asked_again_after_longer_and_longer() {
        let mut refresh = Refresh::new(RefreshConfig::default());
        let (mut now, mut random) = (start(), random());
        for bound_s in [1, 2, 4, 8, 16, 30, 30] {
            assert!(refresh.ask(now));
            refresh.failed(now, &mut random);
            let due = refresh.due_at().unwrap();
            assert!((SECOND..=SECOND + bound_s * SECOND).contains(&(due - now)));
            now = due;
        }
    }

    proptest! {
        #[test]
        fn questions_keep_their_distance_and_none_is_forgotten(
            events in vec((0u32..4000, 0u8..4, any::<bool>()), 0..200),
            seed in any::<u64>(),
        ) {
            let (mut refresh, mut random) = (Refresh::new(RefreshConfig::default()), Random::new(seed));
            let mut now = start();
            // The model: whether a question is under way, when the last was asked, whether somebody wants another.
            let (mut is_asking, mut asked_at, mut is_wanted) = (false, None::<Instant>, false);
            for (wait_ms, event, is_answered) in events {
                now += wait_ms * MS;
                match event {
                    0 | 1 => {
                        let due = refresh.due_at();
                        if refresh.ask(now) {
                            prop_assert!(!is_asking);
                            prop_assert!(asked_at.is_none_or(|at| now - at >= SECOND));
                            (is_asking, asked_at, is_wanted) = (true, Some(now), false);
                        } else {
                            prop_assert!(is_asking || due.is_some_and(|due| due > now));
                            let is_soon = asked_at.is_some_and(|at| now - at < SECOND);
                            prop_assert!(!is_wanted || is_asking || is_soon);
                        }
                    }
                    2 => {
                        refresh.lost(now);
                        is_wanted = true;
                    }
                    _ if is_asking => {
                        is_asking = false;
                        if is_answered {
                            refresh.answered(now, None, &mut random);
                        } else {
                            refresh.failed(now, &mut random);
                        }
                        prop_assert!(refresh.due_at().is_some_and(|due| due <= now + 31 * SECOND));
                    }
                    _ => {}
                }
            }
        }
    }
}
