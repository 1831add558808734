//! Whether a process still listens. The controller asks, so that a broker that died is fenced long before its session ends;
//! voters ask, so that a leader that died is succeeded; brokers, so that they send nobody to one that died.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Rest before another connection; doubles until one lasts. Behind one that lasted there is none.
const REST_MIN: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_secs(1);
/// The same for one that may stay away for days.
const ABSENT_REST_MAX: Duration = Duration::from_secs(30);

/// Resolves when a connection to `host:port` is refused: the machine answers, and nobody listens there. Tells whether
/// there had been a connection before. Holds one open until then and sends nothing on it.
///
/// A machine that does not answer, or a listener that closes connections, says nothing about the process.
pub async fn until_refused(host: &str, port: u16) -> bool {
    let (mut was_connected, mut rest) = (false, REST_MIN);
    loop {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await {
            Ok(Ok(mut stream)) => {
                was_connected = true;
                if timeout(REST_MAX, closed(&mut stream)).await.is_err() {
                    rest = REST_MIN;
                    closed(&mut stream).await;
                    continue;
                }
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return was_connected;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(REST_MAX);
    }
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

async fn closed(stream: &mut TcpStream) {
    let mut unasked = [0; 64];
    while matches!(stream.read(&mut unasked).await, Ok(1..)) {}
}
