//! Journals of operations, as a crash or a bad disk may have left them.

use symvirt_host::operation::journal::{Record, Replayed, Salvaged, replay_bytes};

use crate::mended;

/// A journal.
pub fn check(bytes: &[u8]) {
    for journal in [bytes, &mended::journal(bytes)] {
        let salvaged = Salvaged::of(journal);
        match replay_bytes(journal) {
            Ok(Some(told)) => replayed(journal, &told, &salvaged),
            Ok(None) => assert!(lines(journal) <= 1, "nothing is told of whole records"),
            Err(line) => assert!((1..=lines(journal)).contains(&line), "line {line}"),
        }
    }
}

/// Lines, also one without an end.
fn lines(journal: &[u8]) -> usize {
    journal.split_inclusive(|byte| *byte == b'\n').count()
}

fn replayed(journal: &[u8], told: &Replayed, salvaged: &Salvaged) {
    let length = usize::try_from(told.bytes).expect("a journal in memory");
    let (records, behind) = journal.split_at(length);
    assert!(records.ends_with(b"\n"));
    assert_eq!(lines(records) as u64, told.records);
    assert!(
        lines(behind) <= 1,
        "more than a record that was cut short is passed over"
    );
    assert_eq!(replay_bytes(records), Ok(Some(told.clone())));
    assert_eq!(salvaged.plan.as_ref(), Some(&told.plan));
    let mut again: Option<Replayed> = None;
    for line in records.split_inclusive(|byte| *byte == b'\n') {
        let record = said_again(&line[9..]);
        match (&mut again, record) {
            (None, Record::Planned { plan }) => again = Some(Replayed::start(plan)),
            (None, record) => panic!("begins with {record:?}"),
            (Some(known), record) => assert!(known.follow(record)),
        }
    }
    let again = again.expect("records");
    assert_eq!((&again.state, &again.report), (&told.state, &told.report));
    cut(records, told);
}

/// A record that was understood is written again as one that says the same.
fn said_again(json: &[u8]) -> Record {
    let record: Record = serde_json::from_slice(json).expect("as it was replayed");
    let again = serde_json::to_string(&record).expect("plain data");
    let again: Record = serde_json::from_str(&again).expect("as it was written");
    assert_eq!(again, record);
    record
}

/// A record without its end is as if it had never been written.
fn cut(records: &[u8], told: &Replayed) {
    let last = records[..records.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let before = replay_bytes(&records[..last]).expect("the records before it");
    let told_before = before.as_ref().map_or(0, |before| before.records);
    assert_eq!(told_before + 1, told.records);
    for end in [last + 1, last.midpoint(records.len()), records.len() - 1] {
        assert_eq!(
            replay_bytes(&records[..end]),
            Ok(before.clone()),
            "cut at {end}"
        );
    }
}
