//! Whether a process still listens. The controller asks, so that a broker that died is fenced long before its session ends;
//! voters ask, so that a leader that died is succeeded; brokers, so that they send nobody to one that died.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Rest before another connection; doubles until one lasts. Behind one that lasted there is none.
const REST_MIN: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_secs(1);
/// The same for one that may stay away for days.
const ABSENT_REST_MAX: Duration = Duration::from_secs(30);

/// A connection that is held open to notice when the process at its other end is gone. Nothing is sent on it.
#[derive(Debug, Default)]
pub struct Lifeline(ArcSwapOption<TcpStream>);

impl Lifeline {
    /// Resolves when a connection to `host:port` is refused: the machine answers, and nobody listens there. Tells whether
    /// there had been a connection before. Until then it stays torn, but for one that closes again and again.
    ///
    /// A machine that does not answer, or a listener that closes connections, says nothing about the process.
    pub async fn until_refused(&self, host: &str, port: u16) -> bool {
        let (mut was_connected, mut rest) = (false, REST_MIN);
        loop {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await {
                Ok(Ok(stream)) => {
                    was_connected = true;
                    let stream = Arc::new(stream);
                    self.0.store(Some(Arc::clone(&stream)));
                    if timeout(REST_MAX, closed(&stream)).await.is_err() {
                        rest = REST_MIN;
                        closed(&stream).await;
                        continue;
                    }
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return was_connected;
                }
                Ok(Err(_)) | Err(_) => {}
            }
            if rest > REST_MIN {
                // Neither the first connection that was closed soon, nor the first that could not be made.
                self.let_go();
            }
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(REST_MAX);
        }
    }

    /// Whether the other end has closed the connection, and nobody has found out yet what that means. Asks the system: whoever
    /// was told of it just now may come sooner than the task that waits for it.
    pub fn is_torn(&self) -> bool {
        let held = self.0.load();
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        held.as_ref()
            .is_some_and(|stream| match recv(stream, &mut [0; 1], peek) {
                Ok((_, received)) => received == 0,
                Err(error) => error != Errno::WOULDBLOCK,
            })
    }

    /// What its end means is known.
    pub fn let_go(&self) {
        self.0.store(None);
    }
}

/// [`Lifeline::until_refused`], for who looks at nothing in between.
pub async fn until_refused(host: &str, port: u16) -> bool {
    Lifeline::default().until_refused(host, port).await
}

/// Resolves when a connection to `host:port` is made; asks ever more rarely.
pub async fn until_accepted(host: &str, port: u16) {
    let mut rest = REST_MIN;
    let connect = || timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)));
    while !matches!(connect().await, Ok(Ok(_))) {
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(ABSENT_REST_MAX);
    }
}

async fn closed(stream: &TcpStream) {
    let mut unasked = [0; 64];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut unasked) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}
