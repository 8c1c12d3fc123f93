//! What a lease protects: something that checks fencing tokens as the README recommends, and remembers every access.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::checker::Hold;

/// Somebody wanted to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The lease under which.
    pub lease: String,
    /// The fencing token of the hold.
    pub token: i64,
    /// Who.
    pub holder: String,
    /// Whether it was let in.
    pub accepted: bool,
}

#[derive(Debug, Default)]
struct Book {
    highest: BTreeMap<String, i64>,
    accesses: Vec<Access>,
}

impl Book {
    /// Lets in who has a token that is not below the highest that was seen.
    fn access(&mut self, lease: &str, token: i64, holder: &str) -> bool {
        let highest = self.highest.entry(lease.to_owned()).or_default();
        let accepted = token >= *highest;
        *highest = token.max(*highest);
        self.accesses.push(Access { lease: lease.to_owned(), token, holder: holder.to_owned(), accepted });
        accepted
    }
}

/// The resource, on a port of loopback: a line `LEASE TOKEN HOLDER` is answered with `yes` or `no`.
#[derive(Debug)]
pub struct Resource {
    port: u16,
    book: Arc<Mutex<Book>>,
    accepting: JoinHandle<()>,
}

fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resource {
    /// Starts one.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for a resource")?;
        let port = listener.local_addr().context("a listener has an address")?.port();
        let book = Arc::<Mutex<Book>>::default();
        let written = book.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, written.clone()));
            }
        });
        Ok(Self { port, book, accepting })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Under how many holds somebody was let in.
    #[must_use]
    pub fn holds(&self) -> usize {
        let book = open(&self.book);
        let accepted = book.accesses.iter().filter(|access| access.accepted);
        accepted.map(|access| (&access.lease, access.token)).collect::<BTreeSet<_>>().len()
    }

    /// How often somebody was not let in.
    #[must_use]
    pub fn refused(&self) -> usize {
        open(&self.book).accesses.iter().filter(|access| !access.accepted).count()
    }

    /// What is wrong with the accesses, given every hold that there was.
    #[must_use]
    pub fn judge(&self, holds: &[Hold]) -> Vec<String> {
        judge(&open(&self.book).accesses, holds)
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, book: Arc<Mutex<Book>>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
        return;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let accepted = match words[..] {
        [lease, token, holder] => token.parse().is_ok_and(|token| open(&book).access(lease, token, holder)),
        _ => false,
    };
    let _ = stream.write_all(if accepted { b"yes\n" } else { b"no\n" }).await;
}

/// Among those who were let in, tokens never go back, and each was that holder's, by a grant.
fn judge(accesses: &[Access], holds: &[Hold]) -> Vec<String> {
    let granted: BTreeSet<(&str, i64, &str)> =
        holds.iter().map(|hold| (&*hold.lease, hold.holding.token, &*hold.holding.holder)).collect();
    let mut highest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for access in accesses.iter().filter(|access| access.accepted) {
        let highest = highest.entry(&access.lease).or_default();
        if access.token < *highest {
            wrong.push(format!("{access:?} after the token {highest}"));
        }
        *highest = access.token.max(*highest);
        if !granted.contains(&(&*access.lease, access.token, &*access.holder)) {
            wrong.push(format!("{access:?}, which was never granted"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Holding;

    fn hold(token: i64, holder: &str) -> Hold {
        let (holder, request) = (holder.to_owned(), String::new());
        let holding = Holding { holder, token, acquired: 0, expires: 1, request, renewals: 0 };
        let (namespace, lease) = ("team".to_owned(), "x".to_owned());
        Hold { namespace, lease, holding, granted: 1, grant_seen: true, over: None, how: None }
    }

    #[test]
    fn an_old_token_is_kept_out_and_would_be_noticed() {
        let mut book = Book::default();
        assert_eq!([7, 7, 9, 7, 9].map(|token| book.access("x", token, "a")), [true, true, true, false, true]);
        assert!(book.access("y", 1, "a"), "another lease has tokens of its own");
        book.accesses.pop();
        let holds = [hold(7, "a"), hold(9, "a")];
        assert_eq!(judge(&book.accesses, &holds), [""; 0]);
        // A resource that does not look, somebody who was never granted it, and another's token.
        book.accesses[3].accepted = true;
        assert!(judge(&book.accesses, &holds)[0].contains("after the token 9"));
        book.accesses[3].accepted = false;
        assert!(judge(&book.accesses, &holds[1..])[0].contains("never granted"));
        assert!(judge(&book.accesses, &[hold(7, "a"), hold(9, "b")])[0].contains("never granted"));
    }
}
