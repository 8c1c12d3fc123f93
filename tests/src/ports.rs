//! TCP ports on loopback that nobody else takes.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt::set_socket_reuseaddr};

/// A port on 127.0.0.1 that belongs to us from the choice on, also while no server listens on it.
///
/// The kernel has chosen it for a socket that is bound and never listens: such a socket keeps every other choice of a
/// port away, refuses connections, and lets a server with `SO_REUSEADDR` (all of ours) listen on the same port. So
/// several control planes at once cannot collide, and a server that was killed finds its port free.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _kept: OwnedFd,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Errors
    /// If there is none.
    pub fn take() -> Result<Self> {
        let kept = socket(AddressFamily::INET, SocketType::STREAM, None).context("cannot make a socket")?;
        set_socket_reuseaddr(&kept, true)?;
        bind(&kept, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).context("cannot bind a port of 127.0.0.1")?;
        // What a child inherits would keep the port after us.
        rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::CLOEXEC)?;
        let address = SocketAddr::try_from(getsockname(&kept)?).context("a bound socket has an address")?;
        Ok(Self { number: address.port(), _kept: kept })
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_taken_port_refuses_connections_and_can_be_listened_on_again_and_again() {
        let port = Port::take().expect("a port");
        let other = Port::take().expect("another port");
        assert_ne!(port.number(), other.number());
        for _ in 0..3 {
            TcpStream::connect(("127.0.0.1", port.number())).expect_err("nobody listens");
            let server = TcpListener::bind(("127.0.0.1", port.number())).expect("our own server may listen");
            let client = TcpStream::connect(("127.0.0.1", port.number())).expect("a connection");
            let (accepted, _) = server.accept().expect("accepted");
            // The server's end closes first and stays in TIME_WAIT, as after a kill.
            drop((accepted, server, client));
        }
    }
}
