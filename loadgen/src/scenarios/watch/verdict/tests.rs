use super::*;

fn ms(ms: u64) -> At {
    Duration::from_millis(ms)
}

/// Two subscribers of one channel on nodes 0 and 1, joined at 0.
fn two() -> Verdict {
    let mut verdict = Verdict::new(2, 1);
    verdict.joined(0, 0, Beginning::Anew, ms(0));
    verdict.joined(1, 1, Beginning::Anew, ms(0));
    verdict
}

fn publish(verdict: &mut Verdict, publisher: u32, at: u64) -> usize {
    let (number, _) = verdict.published(0, publisher, publisher as NodeIndex, ms(at));
    verdict.acknowledged(0, number, ms(at + 1));
    number
}

#[test]
fn everything_received_once_and_in_order_is_clean() {
    let mut verdict = two();
    for at in 0..100 {
        let number = publish(&mut verdict, (at % 2) as u32, at * 10);
        for subscriber in 0..2 {
            assert_eq!(
                verdict.received(subscriber, number),
                Receipt::InOrder(ms(at * 10))
            );
        }
    }
    let totals = verdict.settle(ms(5000));
    assert!(totals.clean());
    assert_eq!(
        (totals.expected, totals.delivered, totals.missed_while_away),
        (200, 200, 0)
    );
}

#[test]
fn a_gap_in_a_live_session_is_lost_by_node() {
    let mut verdict = two();
    let number = publish(&mut verdict, 0, 10);
    assert_eq!(verdict.settle(ms(500)).undecided, 2);
    let totals = verdict.settle(ms(5000));
    assert_eq!(
        (totals.lost, totals.lost_same_node, totals.lost_cross_node),
        (2, 1, 1)
    );
    verdict.received(0, number);
    assert_eq!(verdict.settle(ms(5000)).lost, 1);
}

#[test]
fn overtaken_in_its_session_is_lost_however_young() {
    let mut verdict = two();
    publish(&mut verdict, 0, 10);
    let later = publish(&mut verdict, 0, 20);
    verdict.received(1, later);
    verdict.heard(1, ms(25));
    verdict.left(1);
    let totals = verdict.settle(ms(30));
    assert_eq!(
        (totals.lost, totals.missed_while_away, totals.undecided),
        (1, 0, 2)
    );
}

#[test]
fn what_is_sent_after_the_last_byte_of_a_dead_transport_is_missed_while_away() {
    let mut verdict = two();
    verdict.heard(1, ms(1000));
    // The transport is dead from here; the client notices 30 s later.
    for at in [1500, 5000, 20_000] {
        let number = publish(&mut verdict, 0, at);
        verdict.received(0, number);
    }
    verdict.left(1);
    verdict.joined(1, 0, Beginning::Anew, ms(32_000));
    let number = publish(&mut verdict, 0, 33_000);
    verdict.received(0, number);
    verdict.received(1, number);
    let totals = verdict.settle(ms(40_000));
    assert!(totals.clean(), "{totals:?}");
    assert_eq!(
        (totals.missed_while_away, totals.expected, totals.delivered),
        (3, 8, 5)
    );
}

#[test]
fn recovery_brings_missed_while_away_to_nothing() {
    let mut verdict = two();
    verdict.left(1);
    let numbers: Vec<usize> = (0..10).map(|n| publish(&mut verdict, 0, 100 + n)).collect();
    for number in &numbers {
        verdict.received(0, *number);
    }
    assert_eq!(verdict.settle(ms(5000)).missed_while_away, 10);
    verdict.joined(1, 0, Beginning::Anew, ms(5000));
    for number in &numbers {
        assert!(matches!(verdict.received(1, *number), Receipt::InOrder(_)));
    }
    let totals = verdict.settle(ms(9000));
    assert!(totals.clean() && totals.missed_while_away == 0 && totals.delivered == 20);
}

#[test]
fn what_is_missing_after_a_recovery_is_lost_and_not_where_the_subscriber_was_told() {
    for (beginning, lost, told) in [(Beginning::Recovered, 2, 0), (Beginning::Told, 0, 2)] {
        let mut verdict = two();
        verdict.heard(1, ms(50));
        verdict.left(1);
        let numbers: Vec<usize> = (0..5).map(|n| publish(&mut verdict, 0, 100 + n)).collect();
        verdict.joined(1, 0, beginning, ms(5000));
        for (number, is_missing) in numbers.iter().zip([true, false, false, true, false]) {
            verdict.received(0, *number);
            if !is_missing {
                verdict.received(1, *number);
            }
        }
        let totals = verdict.settle(ms(9000));
        assert_eq!((totals.lost, totals.told), (lost, told), "{beginning:?}");
        assert_eq!((totals.missed_while_away, totals.undecided), (0, 0));
    }
}

#[test]
fn twice_is_duplicated_also_on_another_connection() {
    let mut verdict = two();
    let number = publish(&mut verdict, 0, 10);
    verdict.received(1, number);
    assert_eq!(verdict.received(1, number), Receipt::Duplicated);
    verdict.left(1);
    verdict.joined(1, 0, Beginning::Anew, ms(100));
    assert_eq!(verdict.received(1, number), Receipt::Duplicated);
    let totals = verdict.settle(ms(20));
    assert_eq!((totals.duplicated, totals.delivered), (2, 1));
}

#[test]
fn an_earlier_one_after_a_later_one_is_reordered_per_publisher() {
    let mut verdict = two();
    let first = publish(&mut verdict, 0, 10);
    let other = publish(&mut verdict, 1, 11);
    let second = publish(&mut verdict, 0, 12);
    assert!(matches!(verdict.received(0, second), Receipt::InOrder(_)));
    assert!(matches!(verdict.received(0, other), Receipt::InOrder(_)));
    assert_eq!(verdict.received(0, first), Receipt::Reordered);
    let totals = verdict.settle(ms(13));
    // All three arrived: nothing is lost for this subscriber.
    assert_eq!((totals.reordered, totals.lost, totals.delivered), (1, 0, 3));
}

#[test]
fn unanswered_and_refused_publications_are_not_lost() {
    let mut verdict = two();
    verdict.published(0, 0, 0, ms(10));
    let (refused, _) = verdict.published(0, 0, 0, ms(20));
    verdict.refused(0, refused);
    let totals = verdict.settle(ms(60_000));
    assert!(totals.clean());
    assert_eq!(
        (
            totals.unanswered,
            totals.refused,
            totals.unconfirmed,
            totals.expected
        ),
        (1, 1, 2, 0)
    );
}

#[test]
fn what_was_sent_before_the_first_subscription_is_not_expected() {
    let mut verdict = Verdict::new(1, 1);
    publish(&mut verdict, 7, 10);
    verdict.joined(0, 0, Beginning::Anew, ms(50));
    assert_eq!(verdict.settle(ms(60_000)).expected, 0);
    assert_eq!(verdict.received(0, 99), Receipt::Unknown);
    assert!(!verdict.settle(ms(60_000)).clean());
}

/// A world whose faults are known: the verdict must find exactly those.
#[test]
fn injected_faults_are_found_one_for_one() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..30 {
        let (subscribers, channels) = (random.usize(1..20), random.usize(1..4));
        let mut verdict = Verdict::new(subscribers, channels);
        let mut online = vec![true; subscribers];
        for subscriber in 0..subscribers {
            verdict.joined(subscriber, 0, Beginning::Anew, ms(0));
        }
        let mut injected = Totals::default();
        let mut now = 0;
        for _ in 0..500 {
            now += 2000;
            for (subscriber, online) in online.iter_mut().enumerate() {
                verdict.heard(subscriber, ms(now));
                if random.f32() < 0.05 {
                    *online = !*online;
                    if *online {
                        verdict.joined(subscriber, 0, Beginning::Anew, ms(now));
                    } else {
                        verdict.left(subscriber);
                    }
                }
            }
            let channel = random.usize(0..channels);
            let (number, _) =
                verdict.published(channel, random.u32(0..5), random.u16(0..2), ms(now + 1));
            verdict.acknowledged(channel, number, ms(now + 2));
            for subscriber in (0..subscribers).filter(|subscriber| subscriber % channels == channel)
            {
                injected.expected += 1;
                if !online[subscriber] {
                    injected.missed_while_away += 1;
                } else if random.f32() < 0.02 {
                    injected.lost += 1;
                } else {
                    verdict.received(subscriber, number);
                    injected.delivered += 1;
                    if random.f32() < 0.02 {
                        verdict.received(subscriber, number);
                        injected.duplicated += 1;
                    }
                }
            }
        }
        // Sessions that stay open are heard of once more, so that the last rounds can be judged.
        now += 2000;
        for subscriber in 0..subscribers {
            verdict.heard(subscriber, ms(now));
        }
        let totals = verdict.settle(ms(now));
        assert_eq!(
            (
                totals.expected,
                totals.delivered,
                totals.lost,
                totals.missed_while_away,
                totals.duplicated,
                totals.reordered
            ),
            (
                injected.expected,
                injected.delivered,
                injected.lost,
                injected.missed_while_away,
                injected.duplicated,
                0
            )
        );
        assert_eq!(totals.undecided + totals.unconfirmed + totals.unknown, 0);
    }
}
