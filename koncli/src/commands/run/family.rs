//! What a command has started, wherever it has gone: the children of this process, and theirs.
//!
//! This process is a child subreaper: whoever loses its parent below it becomes its own child. Elsewhere than on Linux
//! there is no such thing, and nothing is known of who has left the group.

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpgid, getpgrp, kill_process, kill_process_group, waitpid},
};

/// The children of this process, but for those that are not the command's.
#[derive(Debug)]
pub(super) struct Family {
    others: Vec<Pid>,
}

/// A process that belongs to the command, and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pid: Pid,
    group: Pid,
}

impl Member {
    /// Sends it a signal, with all of its group if it leads one; not if it is in `but`, which has it already.
    pub(super) fn signal(self, signal: Signal, but: Pid) {
        if self.group == but {
            return;
        }
        // Nobody there is no failure: it has ended just now.
        let _ =
            if self.group == self.pid { kill_process_group(self.pid, signal) } else { kill_process(self.pid, signal) };
        if signal == Signal::TERM {
            // A process that is stopped would see it only when it goes on.
            let _ = kill_process(self.pid, Signal::CONT);
        }
    }
}

impl Family {
    /// What is started from now on. The children that there are already are not the command's: the watchdog, and what a
    /// shell had started that this process has taken the place of (`exec koncli lease run …`).
    pub(super) fn from_now() -> Self {
        Self { others: children_of("self") }
    }

    /// The children of this process. What it has started in its own group, such as what a kubeconfig names to get
    /// credentials, is waited for where it was started.
    pub(super) fn orphans(&self) -> Vec<Member> {
        let own = getpgrp();
        let children = children_of("self").into_iter().filter(|child| !self.others.contains(child));
        children.filter_map(member).filter(|child| child.group != own).collect()
    }

    /// The same, and all below them. A process that forks meanwhile may leave one out: who kills does it again.
    pub(super) fn all(&self) -> Vec<Member> {
        let mut found = self.orphans();
        let mut at = 0;
        while let Some(parent) = found.get(at) {
            let below = children_of(&parent.pid.as_raw_nonzero().to_string());
            found.extend(below.into_iter().filter_map(member));
            at += 1;
        }
        found
    }

    /// Fetches the exit status of every child that has ended, but for `leader` until that `has_ended`: its own is of
    /// interest. Returns how many others live.
    pub(super) fn reap(&self, leader: Pid, has_ended: bool) -> usize {
        loop {
            let (mut reaped, mut live) = (false, 0);
            for child in self.orphans().into_iter().filter(|child| has_ended || child.pid != leader) {
                match waitpid(Some(child.pid), WaitOptions::NOHANG) {
                    Ok(Some(_)) => reaped = true,
                    Err(Errno::CHILD) => {}
                    Ok(None) | Err(_) => live += 1,
                }
            }
            // The children of who has ended came to us before, perhaps after we looked.
            if !reaped {
                return live;
            }
        }
    }
}

fn member(pid: Pid) -> Option<Member> {
    Some(Member { pid, group: getpgid(Some(pid)).ok()? })
}

/// The children of a process. Ours stay in the list until we have fetched their exit status, so none is left out.
#[cfg(target_os = "linux")]
fn children_of(process: &str) -> Vec<Pid> {
    // Every thread has those that it has started.
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    texts.flat_map(|text| pids(&text)).collect()
}

#[cfg(not(target_os = "linux"))]
fn children_of(_process: &str) -> Vec<Pid> {
    Vec::new()
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn pids(text: &str) -> Vec<Pid> {
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_list_of_children_is_read() {
        let pid = |number| Pid::from_raw(number).expect("a pid");
        assert_eq!(pids("17 4711 \n"), [pid(17), pid(4711)]);
        assert_eq!(pids(""), []);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_family_is_what_was_started_in_other_groups_and_those_below() {
        let start = |group: Option<i32>| {
            let mut shell = Command::new("sh");
            // It ends when this test does.
            shell.args(["-c", "sleep 60 & read end; kill $!"]).stdin(Stdio::piped());
            if let Some(group) = group {
                shell.process_group(group);
            }
            shell.spawn().expect("a shell")
        };
        let mut other = start(Some(0));
        let family = Family::from_now();
        let (mut own, mut command) = (start(None), start(Some(0)));
        let of = |child: &std::process::Child| Pid::from_child(child);
        let found: Vec<Pid> = family.orphans().iter().map(|member| member.pid).collect();
        assert_eq!(found, [of(&command)]);
        // Its shell starts another process sooner or later.
        let below = loop {
            if let [first, rest @ ..] = &family.all()[..]
                && !rest.is_empty()
            {
                assert_eq!(first.pid, of(&command));
                break rest.to_vec();
            }
            std::thread::yield_now();
        };
        assert!(below.iter().all(|member| member.group == of(&command)), "{below:?}");
        assert_eq!(family.reap(of(&command), true), 1);
        assert_eq!(family.reap(of(&command), false), 0, "its own exit status is asked for elsewhere");
        for child in [&mut own, &mut other, &mut command] {
            drop(child.stdin.take());
            child.wait().expect("it ends");
        }
        assert_eq!(family.reap(of(&command), true), 0);
    }
}
