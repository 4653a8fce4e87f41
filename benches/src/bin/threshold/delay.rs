//! A wire of a given length: connections through it take their time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

/// Listens, and passes on to `target` what comes, later. Returns the port.
pub(crate) async fn wire(target: SocketAddr, delay: Duration) -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    spawn_local(async move {
        while let Ok((near, _)) = listener.accept().await {
            spawn_local(async move {
                let Ok(far) = TcpStream::connect(target).await else { return };
                if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
                    return;
                }
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                spawn_local(pass(near_read, far_write, delay));
                pass(far_read, near_write, delay).await;
            });
        }
    });
    Ok(port)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sent, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    spawn_local(async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if sent.send((Instant::now() + delay, chunk[..n].to_vec())).is_err() {
            return;
        }
    }
}
