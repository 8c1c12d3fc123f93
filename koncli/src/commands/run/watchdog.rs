//! A second process of koncli that kills the command's group if the first cannot: when the first dies, which closes the
//! pipe between them, and at the deadline that it was told last, if the first is suspended then.
//!
//! It knows the group only: what has left the group becomes a child of init when the first process dies.

use std::{
    io::{self, BufRead as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::client::{Clock as _, Moment, SystemClock};

/// How long the watchdog sleeps at most: timers stand still while the machine is suspended, deadlines do not.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const OVER: &str = "over";

/// The way to the second process.
#[derive(Debug)]
pub(super) struct Watchdog {
    process: Child,
    pipe: Option<ChildStdin>,
    told: Option<(Pid, Moment)>,
}

impl Watchdog {
    /// Starts it, in a group of its own: what a terminal sends to this one is not for it.
    pub(super) fn start() -> io::Result<Self> {
        // The very executable that runs, also where it has been replaced meanwhile.
        #[cfg(target_os = "linux")]
        let program = std::path::PathBuf::from("/proc/self/exe");
        #[cfg(not(target_os = "linux"))]
        let program = std::env::current_exe()?;
        let mut process = Command::new(program)
            .arg("__watchdog")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe, told: None })
    }

    /// Tells it what to kill at `deadline`.
    pub(super) fn tell(&mut self, group: Pid, deadline: Moment) {
        if self.told.replace((group, deadline)) != Some((group, deadline)) {
            let ms = deadline.since_origin().as_millis();
            self.write(&format!("{} {ms}", group.as_raw_nonzero()));
        }
    }

    /// There is nothing to kill any more.
    pub(super) fn dismiss(mut self) {
        self.write(OVER);
        self.pipe = None;
        let _ = self.process.wait();
    }

    fn write(&mut self, line: &str) {
        // Without it the command is as safe as this process is: that is no reason to stop it.
        if let Some(pipe) = &mut self.pipe {
            let _ = writeln!(pipe, "{line}").and_then(|()| pipe.flush());
        }
    }
}

/// What the second process does.
pub(crate) fn watch() {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    let mut orders: Option<(Pid, Moment)> = None;
    let kill = |orders: Option<(Pid, Moment)>| {
        if let Some((group, _)) = orders {
            let _ = kill_process_group(group, Signal::KILL);
        }
    };
    loop {
        let left = orders.map_or(LOOK_AGAIN, |(_, deadline)| deadline.left_at(SystemClock.now()));
        if left.is_zero() {
            kill(orders);
        }
        match told.recv_timeout(if left.is_zero() { LOOK_AGAIN } else { left.min(LOOK_AGAIN) }) {
            Ok(line) if line == OVER => return,
            Ok(line) => orders = order(&line).or(orders),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return kill(orders),
        }
    }
}

fn order(line: &str) -> Option<(Pid, Moment)> {
    let (group, ms) = line.split_once(' ')?;
    // 1 and 0 are no groups of ours, and a signal to them would go to everybody.
    let group = group.parse().ok().filter(|&group: &i32| group > 1)?;
    Some((Pid::from_raw(group)?, Moment::new(Duration::from_millis(ms.parse().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_a_group_of_ours_and_a_moment() {
        let group = Pid::from_raw(17).expect("a pid");
        assert_eq!(order("17 1500"), Some((group, Moment::new(Duration::from_millis(1500)))));
        for odd in ["", "17", "1 5", "0 5", "-1 5", "-17 5", "x 5", "17 x"] {
            assert_eq!(order(odd), None, "{odd}");
        }
    }
}
