//! What a node's RPC says of its chain: one question over HTTP, and nothing is believed for more than a comparison.

use monosign_protocol::Height;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A node's status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The chain id.
    pub(super) network: String,
    /// The newest block.
    pub(super) height: Height,
    /// Whether it is behind the chain.
    pub(super) catching_up: bool,
}

/// A status takes 2 KiB.
const LONGEST: u64 = 256 * 1024;

/// Asks `/status` of the node at `http://HOST:PORT`.
pub(super) async fn status(url: &str) -> Result<Status, String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("tcp://"));
    let rest = rest.ok_or("it is not http://HOST:PORT")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).await.map_err(|e| format!("cannot connect: {e}"))?;
    // In HTTP/1.0 the body ends with the connection, and is not sent in chunks.
    let prefix = if path.is_empty() { String::new() } else { format!("/{}", path.trim_end_matches('/')) };
    let request = format!("GET {prefix}/status HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| format!("cannot ask: {e}"))?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await.map_err(|e| format!("cannot read: {e}"))?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<Status, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(answer).map_err(|e| format!("the answer is not HTTP: {e}"))?;
    let httparse::Status::Complete(len) = parsed else { return Err("the answer is cut off".into()) };
    if response.code != Some(200) {
        return Err(format!("it answers with code {}", response.code.unwrap_or(0)));
    }
    let body = answer.get(len..).unwrap_or_default();
    let answer: Answer = serde_json::from_slice(body).map_err(|e| format!("it gives no status: {e}"))?;
    let Body { node_info, sync_info } = match answer {
        Answer::Rpc { result } => result,
        Answer::Plain(body) => body,
    };
    let height = sync_info.latest_block_height.parse().map_err(|_| "it gives no height")?;
    Ok(Status { network: node_info.network, height: Height(height), catching_up: sync_info.catching_up })
}

/// JSON-RPC, or the result alone, as some proxies give it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Rpc { result: Body },
    Plain(Body),
}

#[derive(Deserialize)]
struct Body {
    node_info: NodeInfo,
    sync_info: SyncInfo,
}

#[derive(Deserialize)]
struct NodeInfo {
    network: String,
}

#[derive(Deserialize)]
struct SyncInfo {
    latest_block_height: String,
    catching_up: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Result<Status, String> {
        parse(format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").as_bytes())
    }

    #[test]
    fn reads_a_nodes_status() {
        // As CometBFT v0.38 gives it, shortened.
        let status = answer(
            r#"{"jsonrpc":"2.0","id":-1,"result":{"node_info":{"network":"test-1","version":"0.38.17"},
                "sync_info":{"latest_block_height":"1234","earliest_block_height":"1","catching_up":false},
                "validator_info":{"voting_power":"10"}}}"#,
        );
        let expected = Status { network: "test-1".into(), height: Height(1234), catching_up: false };
        assert_eq!(status, Ok(expected));
    }

    #[test]
    fn what_is_no_status_is_said_so() {
        for body in ["", "{}", r#"{"result":{}}"#, "<html>", r#"{"error":{"code":-32603}}"#] {
            assert!(answer(body).is_err(), "{body}");
        }
        assert!(parse(b"SSH-2.0-OpenSSH_9\r\n").is_err());
        assert!(parse(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
    }
}
