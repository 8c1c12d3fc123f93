//! A bad line: a TCP proxy that can be slow, silent or cut. What goes through it, TLS among it, it does not look at.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::wait::pause;

/// How the line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// It works.
    Good,
    /// Every piece takes so long.
    Slow(Duration),
    /// Nothing goes through, and nobody is told. What was sent meanwhile arrives when the line is good again: late, as
    /// TCP does it.
    Silent,
    /// Connections are closed, and new ones are closed at once. What was on its way is lost.
    Cut,
}

/// A proxy on loopback. Dropping it cuts the line.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    line: watch::Sender<Line>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of a port of 127.0.0.1.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for a proxy")?;
        let port = listener.local_addr().context("a listener has an address")?.port();
        let (line, state) = watch::channel(Line::Good);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connection(near, to, state.clone()));
            }
        });
        Ok(Self { port, line, accepting })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes the line better or worse, also for the connections that there are.
    pub fn is(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is(Line::Cut);
        self.accepting.abort();
    }
}

async fn connection(near: TcpStream, to: u16, mut line: watch::Receiver<Line>) {
    // A line that says nothing does not even connect.
    let Ok(now) = line.wait_for(|line| *line != Line::Silent).await.map(|line| *line) else { return };
    if now == Line::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let cut = line.clone();
    tokio::select! {
        () = carry(near_in, far_out, line.clone()) => {}
        () = carry(far_in, near_out, line) => {}
        () = until_cut(cut) => {}
    }
}

async fn until_cut(mut line: watch::Receiver<Line>) {
    // An error means that the proxy is gone, which is the same.
    let _ = line.wait_for(|line| *line == Line::Cut).await;
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let Ok(now) = line.wait_for(|line| *line != Line::Silent).await.map(|line| *line) else { return };
        if let Line::Slow(by) = now {
            pause(by).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Somebody who says back what is said.
    async fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        port
    }

    async fn says(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(word).await?;
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).await?;
        Ok(back)
    }

    #[tokio::test]
    async fn a_line_is_as_bad_as_it_is_told_to_be() {
        let proxy = Proxy::start(echo().await).await.expect("a proxy");
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
        let mut stream = connect().await.expect("a connection");
        assert_eq!(says(&mut stream, b"good").await.expect("good"), b"good");

        let by = Duration::from_millis(50);
        proxy.is(Line::Slow(by));
        let begun = Instant::now();
        assert_eq!(says(&mut stream, b"slow").await.expect("slow"), b"slow");
        assert!(begun.elapsed() >= 2 * by, "it took {:?}", begun.elapsed());

        proxy.is(Line::Silent);
        let mut late = Box::pin(says(&mut stream, b"late"));
        tokio::time::timeout(by, &mut late).await.expect_err("silent");
        proxy.is(Line::Good);
        assert_eq!(late.await.expect("late, and not lost"), b"late");

        proxy.is(Line::Cut);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        let mut refused = connect().await.expect("it accepts, and closes");
        assert!(says(&mut refused, b"cut").await.is_err());
        proxy.is(Line::Good);
        let mut again = connect().await.expect("a connection");
        assert_eq!(says(&mut again, b"again").await.expect("good again"), b"again");
    }
}
