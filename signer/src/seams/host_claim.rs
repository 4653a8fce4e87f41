//! Names that one process of a host can have at a time: abstract unix sockets.
//!
//! The kernel frees such a name with the process that has it, there is no file that could be moved, copied or left over, and who
//! connects is told whose it is. What it cannot see:
//!
//! * other network namespaces, such as those of containers and of services with `PrivateNetwork=`: each has its own names;
//! * other hosts.
//!
//! Any user of the host can take a name. Who does keeps a signer from starting, and never makes it sign; the refusal names the
//! process.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::disk::{Claim, Holder};

pub(super) fn claim(name: &str) -> io::Result<Claim> {
    match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(listener) => Ok(Claim::Ours(Box::new(listener))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok(Claim::Others(holder(name)?.unwrap_or_default()))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn holder(name: &str) -> io::Result<Option<Holder>> {
    // Not to wait for a listener whose queue is full.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?) {
        Ok(()) => Ok(Some(listener_of(UnixStream::from(socket)).unwrap_or_default())),
        Err(Errno::CONNREFUSED) => Ok(None),
        Err(Errno::AGAIN) => Ok(Some(Holder::default())),
        Err(error) => Err(error.into()),
    }
}

/// Who listens at the other end. tokio asks the kernel for it, and wants a runtime with sockets around it, which a caller need not have.
fn listener_of(stream: UnixStream) -> io::Result<Holder> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let peer = {
        let _inside = runtime.enter();
        tokio::net::UnixStream::from_std(stream)?.peer_cred()
    };
    runtime.shutdown_background();
    let peer = peer?;
    // Zero is a process of another namespace.
    let process = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    Ok(Holder { process, user: process.map(|_| peer.uid()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_holders_until_it_is_dropped_and_says_whose_it_is() {
        let name = format!("monosign-test-{}", std::process::id());
        assert_eq!(holder(&name).unwrap(), None);
        let Claim::Ours(held) = claim(&name).unwrap() else { panic!("nobody else has it") };
        let me = Holder { process: Some(std::process::id()), user: Some(rustix::process::getuid().as_raw()) };
        assert!(matches!(claim(&name).unwrap(), Claim::Others(other) if other == me));
        assert_eq!(holder(&name).unwrap(), Some(me));
        drop(held);
        assert_eq!(holder(&name).unwrap(), None);
        assert!(matches!(claim(&name).unwrap(), Claim::Ours(_)));
    }

    #[test]
    fn a_holder_that_was_asked_too_often_is_still_one() {
        let name = format!("monosign-test-full-{}", std::process::id());
        let Claim::Ours(_held) = claim(&name).unwrap() else { panic!("nobody else has it") };
        // More than any queue of a listener holds.
        for _ in 0..5000 {
            assert!(holder(&name).unwrap().is_some());
        }
        assert!(matches!(claim(&name).unwrap(), Claim::Others(_)));
    }
}
