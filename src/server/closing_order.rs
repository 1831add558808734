//! In which order the system closes the sockets of this process should it die: from the highest number down. A client that loses
//! its connection asks another node at once, and that one should see by then that nobody is here any more
//! ([`crate::api::Vanished`]): so listeners close first, then the connections by which other nodes watch this process, then the rest.
//!
//! No document promises that order. Linux's `close_files` goes up the numbers, but leaves each last `fput` to the work that a task
//! does when it ends, newest first. A process with more open files than the numbers here, or whose limit of open files is below
//! them, closes its sockets in some other order; then it takes clients longer to go on.

use std::net;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LISTENERS_FROM: i32 = 16_384;
const WATCHED_FROM: i32 = 8_192;
/// A client says something sooner; who watches never does.
const SILENCE: Duration = Duration::from_millis(500);

/// The same listener, to be closed first.
pub fn listener(listener: TcpListener) -> TcpListener {
    let moved = moved(&listener, LISTENERS_FROM);
    let moved = moved.and_then(|fd| TcpListener::from_std(net::TcpListener::from(fd)).ok());
    moved.unwrap_or(listener)
}

/// Waits for what comes first on a new connection; one that is silent is one of those that are closed early.
pub async fn connection(stream: TcpStream) -> TcpStream {
    if timeout(SILENCE, stream.peek(&mut [0])).await.is_ok() {
        return stream;
    }
    let moved = moved(&stream, WATCHED_FROM);
    let moved = moved.and_then(|fd| TcpStream::from_std(net::TcpStream::from(fd)).ok());
    moved.unwrap_or(stream)
}

/// A second number for a socket, if the limit of open files allows one: for all, or the order were worse than by chance.
fn moved(socket: impl AsFd, from: i32) -> Option<OwnedFd> {
    is_allowed().then(|| fcntl_dupfd_cloexec(socket, from).ok())?
}

fn is_allowed() -> bool {
    let limit = getrlimit(Resource::Nofile).current;
    limit.is_none_or(|limit| limit > LISTENERS_FROM.unsigned_abs().into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::process::setrlimit;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn listeners_are_closed_first_and_then_connections_that_say_nothing() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        let ours = listener(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let at = ours.local_addr().unwrap();
        let (mut client, _watcher) = (
            TcpStream::connect(at).await.unwrap(),
            TcpStream::connect(at).await.unwrap(),
        );
        let (from_client, _) = ours.accept().await.unwrap();
        let (from_watcher, _) = ours.accept().await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (from_client, from_watcher) =
            tokio::join!(connection(from_client), connection(from_watcher));
        assert!(from_client.as_raw_fd() < WATCHED_FROM);
        let watched = WATCHED_FROM..LISTENERS_FROM;
        assert_eq!(watched.contains(&from_watcher.as_raw_fd()), is_allowed());
        assert_eq!(ours.as_raw_fd() >= LISTENERS_FROM, is_allowed());
        // They still work.
        drop(client);
        let mut unread = [0; 8];
        assert_eq!(from_client.peek(&mut unread).await.unwrap(), 5);
        let closed = from_watcher.peek(&mut unread);
        assert!(timeout(SILENCE, closed).await.is_err(), "it is still there");
    }
}
