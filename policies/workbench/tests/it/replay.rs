//! Journals: reproduced, and decided again by another policy.

use konductor_workbench::{
    Mistake, Policy, Record,
    replay::{self, Comparison, Kind, Records, Reproduced},
    scenario,
};

use crate::{always, host, never};

/// Every decision of a small story: a grant, a renewal, a preemption, an expiry and a release.
fn journal() -> Vec<(usize, Record)> {
    let scenario = scenario::parse(
        "lease: {ttl: 30s, params: {preemption: LowerPriority, gracePeriod: 10s}}
until: 2m
actors:
- {holder: low, priority: 1}
- {holder: lower, priority: 0, leaves: 1s}
- {holder: high, at: 15s, priority: 5, work: 20s}
- {holder: late, at: 20s, priority: 1, crash: 5s}
- {holder: last, at: 60s, work: 5s}",
    )
    .expect("a scenario");
    let (story, journal) = scenario::play_and_record(&scenario, host(), host().builtin()).expect("it is played");
    assert!(story.summary.questions >= journal.len() && journal.len() > 8, "{} decisions", journal.len());
    let lines: Vec<String> = journal.iter().map(|record| record.line().expect("short")).collect();
    read(lines.join("\n").as_bytes()).expect("a journal")
}

fn read(journal: &[u8]) -> Result<Vec<(usize, Record)>, Mistake> {
    Records::of(journal).collect()
}

fn differs(record: &Record, policy: &Policy) -> String {
    match replay::reproduce(record, policy) {
        Reproduced::Differs(found) => found.join("\n"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_module_decided_it_decides_again_to_the_byte() {
    let builtin = host().builtin();
    for (line, record) in journal() {
        assert_eq!(record.digest, builtin.digest());
        assert_eq!(replay::reproduce(&record, &builtin), Reproduced::Same, "line {line}");
    }
}

#[test]
fn a_journal_that_was_tampered_with_is_found_out() {
    let builtin = host().builtin();
    let (_, record) = journal().swap_remove(0);
    let tampered = [
        (Record { fuel: record.fuel.map(|fuel| fuel + 1), ..record.clone() }, "fuel    recorded"),
        (Record { output: record.output.clone().map(|text| text + " "), ..record.clone() }, "output  recorded"),
        (Record { input: record.input.replace("\"low\"", "\"lower\""), ..record.clone() }, "fuel"),
        (Record { fault: Some("Trap".to_owned()), ..record.clone() }, "fault   recorded  Trap"),
        (Record { output: None, ..record.clone() }, "output  recorded  none"),
    ];
    for (record, said) in tampered {
        let found = differs(&record, &builtin);
        assert!(found.contains(said), "{said}: {found}");
    }
    // A module that fails is reproduced by failing again.
    let failed = Record { output: None, fuel: None, fault: Some("Trap".to_owned()), ..record.clone() };
    assert_eq!(replay::reproduce(&failed, &never()), Reproduced::Same);
    assert!(differs(&record, &never()).contains("now       Trap"));
}

#[test]
fn another_policy_is_compared_by_what_it_does() {
    let journal = journal();
    // The same one, with other words, does nothing else.
    let mut same = Comparison::default();
    for (_, record) in &journal {
        same.count(replay::redecide(record, &host().builtin()).expect("an input").as_ref());
    }
    assert_eq!((same.compared, same.different), (journal.len(), 0));

    let kinds = |answer: &str, wanted: &dyn Fn(&Record) -> bool| {
        let (_, record) = journal.iter().find(|(_, record)| wanted(record)).expect("such a decision");
        let change = replay::redecide(record, &always(answer)).expect("an input").expect("it differs");
        (change.kinds.clone(), change.was.clone(), change.would_be.clone())
    };
    let said =
        |what: &'static str| move |record: &Record| record.output.as_ref().is_some_and(|output| output.contains(what));
    let (was, would_be) = (said("\"grant\""), said("preempt"));
    let (found, ..) = kinds("{}", &was);
    assert_eq!(found, [Kind::GrantsNot]);
    let (found, before, after) = kinds(r#"{"grant":{"request":0,"ttlMs":5}}"#, &was);
    assert_eq!(found, [Kind::OtherTtl], "{before} {after}");
    assert!(before.contains("grants low for 30s") && after.contains("grants low for 5ms"), "{before} {after}");
    assert_eq!(kinds("{}", &would_be).0, [Kind::PreemptsNot]);
    assert_eq!(kinds(r#"{"hold":{"action":"preempt","for":0,"graceMs":1}}"#, &would_be).0, [Kind::PreemptsOtherwise]);
    assert_eq!(kinds(r#"{"deny":[{"request":0,"reason":"no"}]}"#, &would_be).0, [Kind::PreemptsNot, Kind::Denies]);
    assert_eq!(kinds("{}", &said("renew")).0, [Kind::RenewsNot]);
    let (found, _, after) = kinds(r#"{"grant":{"request":9,"ttlMs":5}}"#, &was);
    assert_eq!(found, [Kind::Fails]);
    assert!(after.contains("UnknownRequest"), "{after}");
    let (found, before, after) = kinds(r#"{"grant":{"request":1,"ttlMs":30000}}"#, &was);
    assert_eq!(found, [Kind::OtherWinner]);
    assert!(before.contains("grants low ") && after.contains("grants lower "), "{before} {after}");
}

#[test]
fn a_line_that_is_no_record_is_named() {
    let (_, record) = journal().swap_remove(0);
    let line = record.line().expect("short");
    let problem = read(format!("{line}\n\n{}\n", &line[..50]).as_bytes()).expect_err("cut off").to_string();
    assert!(problem.starts_with("line 3: "), "{problem}");
    let mut no_input = record;
    no_input.input = "[]".to_owned();
    assert!(replay::redecide(&no_input, &host().builtin()).is_err());
}

#[test]
fn a_last_line_that_was_cut_is_told_and_nothing_else_is_taken_for_one() {
    let (_, record) = journal().swap_remove(0);
    let line = record.line().expect("short");
    let whole = format!("{line}\n{}", line.replace("default/lease", "default/l\u{e9}ase"));
    // Wherever it was stopped, also within a letter.
    for end in line.len() + 2..whole.len() {
        let mut records = Records::of(&whole.as_bytes()[..end]);
        let read = records.by_ref().collect::<Result<Vec<_>, _>>().unwrap_or_else(|mistake| panic!("{end}: {mistake}"));
        assert_eq!((read, records.cut()), (vec![(1, record.clone())], Some(2)), "{end}");
    }
    let mut records = Records::of(whole.as_bytes());
    assert_eq!((records.by_ref().count(), records.cut()), (2, None));
    for (no_journal, said) in [
        (line[..50].to_owned(), "line 1"),
        (format!("{line}\nnonsense"), "line 2"),
        (format!("{}\n{line}", &line[..50]), "line 1"),
        (format!("{line}\n{{{}", " ".repeat(1024 * 1024)), "line 2: the line has more than 524288 bytes"),
    ] {
        let mistake = read(no_journal.as_bytes()).expect_err(said).to_string();
        assert!(mistake.starts_with(said), "{mistake}");
    }
}

#[test]
fn what_the_machine_did_is_not_the_modules_doing() {
    let (_, record) = journal().swap_remove(0);
    for fault in ["DeadlineExceeded", "SandboxFailed"] {
        assert!(konductor_policy::Fault::REASONS.contains(&fault), "{fault}");
        let failed = Record { output: None, fuel: None, fault: Some(fault.to_owned()), ..record.clone() };
        let again = replay::reproduce(&failed, &host().builtin());
        assert_eq!(again, Reproduced::MachineFailed(format!("recorded {fault}")));
    }
}
