//! Every combination of what the disk and what Kafka say: kept, taken back, or refused in words that name both sides.

use super::*;

const MINE: &str = "00000000000000000000000000000001";
const PAST: &str = "00000000000000000000000000000002";
const OTHER: &str = "00000000000000000000000000000003";

fn point(number: u64, in_transaction: bool) -> Point {
    Point {
        number,
        in_transaction,
        incarnation: 1,
        positions: format!("at-{number}"),
    }
}

/// `latest` with a `*` was decided by the state alone.
fn disk(latest: Option<(u64, bool)>, undecided: Option<u64>) -> Disk {
    Disk {
        state: MINE.into(),
        supersedes: vec![PAST.into()],
        latest: latest.map(|(number, kafka)| point(number, kafka)),
        undecided: undecided.map(|number| point(number, true)),
    }
}

fn decided(state: &str, number: u64) -> Decision {
    let mut decision = Decision::new(state.into(), number, 1);
    decision.positions = format!("at-{number}");
    decision
}

#[test]
fn what_disk_and_decision_say_together() {
    use Verdict::*;
    let table: &[(
        Option<(u64, bool)>,
        Option<u64>,
        Option<u64>,
        Result<Verdict, &str>,
    )] = &[
        // A first start.
        (None, None, None, Ok(Agree)),
        (None, None, Some(3), Err("older copy")),
        // Nothing was open.
        (Some((5, true)), None, Some(5), Ok(Agree)),
        (Some((5, true)), None, Some(4), Err("Kafka lost it")),
        (Some((5, true)), None, None, Err("is not there")),
        (Some((5, true)), None, Some(6), Err("older copy")),
        // The state decided by itself: checkpoint 0, or at-least-once for a while.
        (Some((0, false)), None, None, Ok(Agree)),
        (Some((9, false)), None, Some(5), Ok(Agree)),
        (Some((9, false)), None, Some(10), Err("older copy")),
        // One was open.
        (Some((5, true)), Some(6), Some(6), Ok(Keep(6))),
        (Some((5, true)), Some(6), Some(5), Ok(TakeBack(6))),
        (Some((5, true)), Some(6), Some(4), Err("Kafka lost it")),
        (Some((5, true)), Some(6), None, Err("Kafka lost it")),
        (Some((5, true)), Some(6), Some(7), Err("older copy")),
        (Some((0, false)), Some(1), None, Ok(TakeBack(1))),
        (Some((0, false)), Some(1), Some(1), Ok(Keep(1))),
        (Some((9, false)), Some(10), Some(5), Ok(TakeBack(10))),
    ];
    for (latest, undecided, decision, expected) in table {
        let decision = decision.map(|number| decided(MINE, number));
        let found = verdict(&disk(*latest, *undecided), decision.as_ref());
        let case = format!("{latest:?} {undecided:?} {decision:?}: {found:?}");
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{case}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{case}"),
            _ => panic!("{case}"),
        }
    }
}

#[test]
fn a_decision_of_another_state_is_refused_and_one_of_the_own_past_decides_nothing() {
    let known = disk(Some((0, false)), Some(1));
    assert_eq!(
        verdict(&known, Some(&decided(PAST, 40))),
        Ok(Verdict::TakeBack(1))
    );
    let why = verdict(&known, Some(&decided(OTHER, 40))).unwrap_err();
    for part in [
        MINE,
        OTHER,
        "checkpoint 40",
        "--abandon 00000000000000000000000000000003",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
}

#[test]
fn the_same_number_at_other_positions_is_a_copy_that_went_another_way() {
    let mut decision = decided(MINE, 6);
    decision.positions = "elsewhere".into();
    for (latest, undecided) in [((5, true), Some(6)), ((6, true), None)] {
        let why = verdict(&disk(Some(latest), undecided), Some(&decision)).unwrap_err();
        assert!(why.contains("a copy that went another way"), "{why}");
    }
    let mut other = decided(MINE, 6);
    other.incarnation = 2;
    for (latest, undecided) in [((5, true), Some(6)), ((6, true), None)] {
        let disk = disk(Some(latest), undecided);
        let why = known(&disk, &other).unwrap_err();
        assert!(
            why.contains("of incarnation 2"),
            "before it is shut out: {why}"
        );
        assert_eq!(verdict(&disk, Some(&other)), Err(why));
        assert_eq!(known(&disk, &decided(MINE, 6)), Ok(()));
    }
    decision.checkpoint = 5;
    let why = verdict(&disk(Some((5, true)), Some(6)), Some(&decision)).unwrap_err();
    assert!(why.contains("a copy that went another way"), "{why}");
}
