//! Something that may have been begun: for a `select!` whose branches come and go.

use std::{future::Future, pin::Pin};

/// What has been begun and has not ended.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Waits for something that may not have been begun; then it never ends. What has ended is forgotten.
pub(crate) async fn if_any<T>(pending: &mut Option<Pending<T>>) -> T {
    match pending {
        Some(future) => {
            let value = future.as_mut().await;
            *pending = None;
            value
        }
        None => std::future::pending().await,
    }
}
