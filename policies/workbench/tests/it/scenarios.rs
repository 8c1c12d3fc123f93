//! Scenarios: what happens in them, and how it is told.

use std::sync::Arc;

use konductor_workbench::{
    Policy,
    scenario::{self, Broken, Happening, Story, WaitEnd},
};

use crate::{always, host, never};

fn story(policy: Arc<Policy>, text: &str) -> Story {
    let scenario = scenario::parse(text).unwrap_or_else(|mistake| panic!("{text}\n{mistake}"));
    scenario::play(&scenario, host(), policy).unwrap_or_else(|broken| panic!("{text}\n{broken}"))
}

fn builtin(text: &str) -> Story {
    story(host().builtin(), text)
}

/// The holds as `holder from-to how`, in seconds.
fn holds(story: &Story) -> Vec<String> {
    let seconds = |ms: i64| format!("{}", ms as f64 / 1_000.0);
    story
        .holds
        .iter()
        .map(|hold| {
            let to = hold.to.map_or_else(String::new, seconds);
            format!("{} {}-{to} {}", hold.holder, seconds(hold.from), hold.how.unwrap_or("held"))
        })
        .collect()
}

fn at(story: &Story, what: Happening) -> Vec<i64> {
    story.entries.iter().filter(|entry| entry.what == what).map(|entry| entry.at / 1_000).collect()
}

const CRASH: &str = "
lease: {ttl: 30s}
until: 5m
actors:
- {holder: web-1, crash: 20s}
- {holder: web-2, at: 5s, work: 45s}
- {holder: web-3, at: 6s, leaves: 30s}
";

#[test]
fn a_crashed_holder_is_replaced_when_its_time_is_over_and_not_before() {
    let story = builtin(CRASH);
    // Renewed at 10 s for 30 s; the renewal at 20 s is no more.
    assert_eq!(holds(&story), ["web-1 0-40 Expired", "web-2 40-85 Released"]);
    assert_eq!(story.holds[0].crashed, Some(20_000));
    assert_eq!(
        story.waits.iter().map(|wait| wait.end).collect::<Vec<_>>(),
        [WaitEnd::Granted, WaitEnd::Granted, WaitEnd::Left]
    );
    assert_eq!((story.holds[0].renewals, story.holds[1].renewals), (1, 4));
    assert!(story.holds[1].token > story.holds[0].token);
    // The same story, whenever it is told.
    assert_eq!(builtin(CRASH), story);
}

#[test]
fn a_holder_that_is_asked_to_leave_does_or_does_not() {
    let scene = |more: &str| {
        builtin(&format!(
            "{{lease: {{ttl: 60s, params: {{preemption: LowerPriority, gracePeriod: 10s}}}}, until: 5m, actors: [
                {{holder: low, priority: 1, {more}}}, {{holder: high, at: 30s, priority: 5, work: 10s}}]}}"
        ))
    };
    assert_eq!(holds(&scene("work: 4m")), ["low 0-31 Preempted", "high 31-41 Released"]);
    assert_eq!(holds(&scene("work: 4m, leaveAfter: 5s"))[0], "low 0-35 Preempted");
    // It was renewed at 20 s until 80 s, and is not any more.
    let ignoring = scene("onPreempt: ignore");
    assert_eq!(holds(&ignoring), ["low 0-80 Preempted", "high 80-90 Released"]);
    assert_eq!(at(&ignoring, Happening::Preempting), [30]);
    assert_eq!(at(&ignoring, Happening::RenewalRefused), [40, 60]);
}

#[test]
fn an_actor_comes_again_and_again_under_one_name_or_many() {
    let scene = |more: &str| {
        builtin(&format!(
            "{{lease: {{ttl: 60s}}, until: 100s, actors: [{{holder: job, at: 10s, every: 30s, {more}}}]}}"
        ))
    };
    assert_eq!(
        holds(&scene("work: 5s")),
        ["job-1 10-15 Released", "job-2 40-45 Released", "job-3 70-75 Released", "job-4 100- held"]
    );
    assert_eq!(holds(&scene("work: 5s, count: 2")).len(), 2);
    // The newer request of the same holder takes the place of its hold.
    assert_eq!(holds(&scene("sameHolder: true, count: 2, work: 50s")), ["job 10-40 Superseded", "job 40-90 Released"]);
}

#[test]
fn what_comes_at_one_instant_is_seen_together() {
    let story = builtin("{lease: {ttl: 60s}, until: 10s, actors: [{holder: a}, {holder: b, priority: 5}]}");
    assert_eq!(holds(&story), ["b 0- held"]);
    assert_eq!(story.waits[0].end, WaitEnd::Waiting);
}

#[test]
fn a_request_lapses_when_its_timeout_is_over() {
    let story = builtin(
        "{lease: {ttl: 60s}, until: 2m, actors: [{holder: a, work: 90s}, {holder: b, at: 1s, timeout: 20s}, {holder: c, at: 2s, timeout: 0s}]}",
    );
    let ends: Vec<_> = story.waits.iter().map(|wait| (wait.to, wait.end)).collect();
    assert_eq!(ends[1], (Some(21_000), WaitEnd::TimedOut));
    assert_eq!(ends[2], (Some(2_000), WaitEnd::TimedOut));
}

#[test]
fn a_lease_that_is_not_renewable_is_lost_in_the_middle_of_the_work() {
    let story = builtin("{lease: {ttl: 30s, renewable: false}, until: 2m, actors: [{holder: a, work: 60s}]}");
    assert_eq!(holds(&story), ["a 0-30 Expired"]);
    let unrenewed = builtin("{lease: {ttl: 30s}, until: 2m, actors: [{holder: a, work: 60s, renew: false}]}");
    assert_eq!(holds(&unrenewed), ["a 0-30 Expired"]);
}

#[test]
fn what_a_broken_policy_means_is_up_to_the_lease() {
    let scene = |on_failure: &str| {
        format!("{{lease: {{ttl: 30s, onFailure: {on_failure}}}, until: 1m, actors: [{{holder: a, work: 10s}}]}}")
    };
    for (policy, fails) in [(never(), true), (always(r#"{"hold":{"action":"expire"}}"#), false)] {
        let with_default = story(policy.clone(), &scene("Default"));
        assert_eq!(holds(&with_default), ["a 0-10 Released"]);
        let held = story(policy, &scene("Hold"));
        assert_eq!(holds(&held), [""; 0]);
        // Asked when a comes, and when the count of who waits is written, three seconds later.
        let (faults, vetoes) = (held.summary.faults, held.summary.vetoes);
        assert_eq!((faults, vetoes), if fails { (2, 0) } else { (0, 2) });
    }
    let refused = builtin("{lease: {ttl: 30s, onFailure: Hold, params: {x: 1}}, until: 1m, actors: [{holder: a}]}");
    assert_eq!(refused.summary.faults, 2);
    assert!(refused.timeline().contains("refuses its params"), "{}", refused.timeline());
}

#[test]
fn a_denial_ends_a_wait() {
    let policy = always(r#"{"deny":[{"request":0,"reason":"not on <Sundays>"}]}"#);
    let story = story(
        policy,
        "{description: 'R & B', lease: {ttl: 30s}, until: 1m, actors: [{holder: a}, {holder: b, at: 5s}]}",
    );
    assert_eq!(at(&story, Happening::Denied), [0, 5]);
    assert!(story.waits.iter().all(|wait| wait.end == WaitEnd::Denied));
    let svg = story.svg();
    assert!(svg.contains("a is denied at 0s: not on &lt;Sundays&gt;") && svg.contains("R &amp; B"), "{svg}");
}

#[test]
fn calendars_see_the_time_at_which_the_scenario_begins() {
    let scenario = scenario::parse(
        "{start: 2026-02-03T04:05:06Z, lease: {ttl: 30s}, until: 10s, actors: [{holder: a, at: 1500ms}]}",
    )
    .expect("a scenario");
    let (_, journal) = scenario::play_and_record(&scenario, host(), host().builtin()).expect("it is played");
    assert_eq!(journal[0].at, "2026-02-03T04:05:07.500Z");
    assert!(journal[0].input.starts_with("{\"now\":1770091507500,"), "{}", journal[0].input);
}

#[test]
fn a_policy_that_wants_to_be_woken_all_the_time_is_stopped() {
    let scenario = scenario::parse("{lease: {ttl: 30s}, until: 10d, actors: [{holder: a}]}").expect("a scenario");
    let broken = scenario::play(&scenario, host(), always(r#"{"wakeInMs":1}"#)).expect_err("100,000 steps");
    // Not sooner than the guard allows: ten times a second.
    assert!(matches!(broken, Broken::TooLong { at } if at > 9_000_000), "{broken}");
}

#[test]
fn what_is_expected_is_compared() {
    let expecting = |expect: &str| {
        let scenario = scenario::parse(&format!("{CRASH}expect: {expect}")).expect(expect);
        scenario::play(&scenario, host(), host().builtin()).expect("it is played").differences(&scenario).join("\n")
    };
    let all = "{holders: [web-1, web-2], ends: [Expired, Released], denied: [], faults: 0, vetoes: 0, maxWait: 35s}";
    assert_eq!(expecting(all), "");
    for (expect, said) in [
        ("{holders: [web-2]}", "holders  expected  web-2\n         got       web-1, web-2"),
        ("{ends: [Expired, null]}", "got       Expired, Released"),
        ("{denied: [web-3]}", "denied   expected  web-3"),
        ("{faults: 1}", "faults   expected  1"),
        ("{vetoes: 1}", "vetoes   expected  1"),
        // web-3 waited for 24 s and left; web-2 for 35 s.
        ("{maxWait: 34s}", "got       web-2 waited 35s"),
    ] {
        let found = expecting(expect);
        assert!(found.contains(said), "{expect}\n{found}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let actor = |actor: &str| format!("{{lease: {{ttl: 30s}}, until: 1m, actors: [{actor}]}}");
    for (text, said) in [
        ("{}", "until: it is missing"),
        ("{until: 1m}", "actors: nobody comes"),
        ("{until: 1m, actors: [{holder: a}]}", "lease: it is missing"),
        ("{until: 1m, actors: [{holder: a}], lease: {}}", "lease.ttl: it is missing"),
        ("{until: 400d}", "above the limit of 366 days"),
        ("{util: 1m}", "did you mean until?"),
        (&actor("{}"), "actors[0]: holder is missing"),
        (&actor("{holder: a, lives: 3s}"), "there is no member \"lives\""),
        (&actor("{holder: a, at: 9s, leaves: 3s}"), "leaves before it comes"),
        (&actor("{holder: a, count: 3}"), "write every too"),
        (&actor("{holder: a, every: 0s}"), "for ever at once"),
        (&actor("{holder: a, every: 1ms}"), "at most 1000"),
        (&actor("{holder: a, onPreempt: hide}"), "release and ignore"),
        (&actor("{holder: a, onPreempt: ignore, leaveAfter: 1s}"), "so it does not leave"),
        ("{lease: {ttl: 30s}, until: 1m, actors: [{holder: a}], expect: {ends: [Relesed]}}", "did you mean Released?"),
    ] {
        let problem = scenario::parse(text).expect_err(text).to_string();
        assert!(problem.contains(said), "{text}\n{problem}");
    }
}

#[test]
fn a_story_is_told_as_text_and_as_numbers() {
    let story = builtin(CRASH);
    let lines: Vec<String> =
        story.timeline().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines[..6],
        [
            "TIME EVENT HOLDER TOKEN WHY",
            "0s arrives web-1",
            "0s granted web-1 2 waited 0s: highest priority, then first come",
            "5s arrives web-2",
            "6s arrives web-3",
            "10s renewed web-1 2 until 40s",
        ]
    );
    assert!(lines.iter().any(|line| line.ends_with("4 times, the last time at 1m20s, until 1m50s")), "{lines:#?}");
    let totals = story.totals();
    for said in [
        "2 holds, 5 renewals (0 refused), 0 preemptions, 1 crashes in 5m",
        "from a crash to the next holder: longest 20s",
        "held 28% of the time",
        "web-2   53%  45s in 1 holds, longest wait 35s",
    ] {
        assert!(totals.contains(said), "{said}\n{totals}");
    }
}

#[test]
fn a_story_is_drawn_in_lanes() {
    let drawn = builtin(CRASH).lanes(68);
    let lines: Vec<&str> = drawn.lines().collect();
    // 60 columns of five seconds.
    assert_eq!(lines[0], format!("web-1 │{}×{}{}│", "█".repeat(4), "▒".repeat(3), " ".repeat(52)));
    assert_eq!(lines[1], format!("web-2 │ {}{}{}│", "─".repeat(7), "█".repeat(9), " ".repeat(43)));
    assert_eq!(lines[2], format!("web-3 │ {}{}│", "─".repeat(5), " ".repeat(54)));
    assert!(lines[4].contains("0s") && lines[4].ends_with("5m"), "{drawn}");
}

#[test]
fn a_drawing_has_a_lane_for_each_and_a_title_on_each_bar() {
    let svg = builtin(CRASH).svg();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
    for said in [
        "<title>web-1 holds 40s from 0s, token 2, 1 renewals, Expired</title>",
        "<title>web-1 has crashed and still holds, 20s until Expired</title>",
        "<title>web-2 waits 35s from 5s, then granted</title>",
        "<title>web-3 waits 24s from 6s, then left</title>",
        "<title>web-1 crashes at 20s</title>",
    ] {
        assert!(svg.contains(said), "{said}\n{svg}");
    }
    // Every element that is opened is closed, or closes itself.
    let (mut open, mut rest) = (Vec::new(), svg.as_str());
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name.to_owned()));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().expect("a name").to_owned());
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, [""; 0]);
    // The crash is drawn at 20 s of 300, and the hold of web-2 begins at 40 s.
    let x = |from: &str| {
        let at = svg.find(from).expect(from);
        let tag = &svg[svg[..at].rfind("<rect x=\"").expect("a bar") + 9..];
        tag.split('"').next().expect("a number").parse::<f64>().expect("a number")
    };
    let (zero, crash, next) = (x("web-1 holds"), x("has crashed and"), x("web-2 holds"));
    assert!(((crash - zero) - 60.0).abs() < 0.2 && ((next - zero) - 120.0).abs() < 0.2, "{zero} {crash} {next}");
}
