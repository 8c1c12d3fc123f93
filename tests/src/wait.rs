//! Waiting for a condition: the only place with a delay between attempts. Tests never sleep.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long tests wait for what should take well under a second: generous, because it is only used up by a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is `Ok(Ok(value))`. `Ok(Err(state))` is "not yet, this is how it looks", `Err` gives up.
///
/// # Errors
/// What `ask` gave up with, or that it took longer than `most`, with the last state.
pub async fn poll<T, S: Display>(
    what: &str,
    most: Duration,
    mut ask: impl AsyncFnMut() -> Result<Result<T, S>>,
) -> Result<T> {
    let started = Instant::now();
    let mut delay = Duration::from_millis(5);
    loop {
        // One last attempt begins at the deadline; an attempt that hangs does not outlive it by much.
        let left = most.saturating_sub(started.elapsed()) + Duration::from_secs(1);
        let state = match tokio::time::timeout(left, ask()).await {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(state))) => state.to_string(),
            Ok(Err(error)) => return Err(error.context(format!("while waiting until {what}"))),
            Err(_) => "no answer".to_owned(),
        };
        if started.elapsed() >= most {
            bail!("waited {:.1} s in vain until {what}; last seen: {state}", started.elapsed().as_secs_f64());
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 3 / 2).min(Duration::from_millis(100));
    }
}

/// Asks until the answer is `Ok(value)`, for at most `most`; `Err` says how it looks now.
///
/// # Panics
/// If that never happens: with `what` and the last state.
pub async fn within<T, S: Display>(what: &str, most: Duration, mut ask: impl AsyncFnMut() -> Result<T, S>) -> T {
    poll(what, most, async || Ok(ask().await)).await.unwrap_or_else(|problem| panic!("{problem:#}"))
}

/// As [`within`], for what should take well under a second.
///
/// # Panics
/// If it does not happen in 30 seconds: with `what` and the last state.
pub async fn eventually<T, S: Display>(what: &str, ask: impl AsyncFnMut() -> Result<T, S>) -> T {
    within(what, PATIENCE, ask).await
}

/// Lets time go by. Only for what lasts by its nature, such as a fault: a test waits for conditions.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
