use monosign_protocol::Dialect;

use crate::link::Transport;

/// What differs between releases and transports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quirks {
    /// A wish for a connection is kept while another one is being accepted, and an accept that failed is repeated (v0.37
    /// on: `connectRequestCh` has a buffer of one).
    pub(super) keeps_wishes: bool,
    /// A ping that was due before an answer came is still sent after it (Go's timers before 1.23, which the `go.mod` of
    /// v0.34 to v0.38 asks for).
    pub(super) keeps_missed_ticks: bool,
    /// The stream of a failed handshake stays open until the garbage collector closes it (`TCPListener.Accept`; v0.39 and
    /// v0.40 close it, and noise does).
    pub(super) forgets_streams: bool,
    /// A failed write is noticed at the next one (v0.39 on: `SecretConnection.Write` ignores the error of its flush, which
    /// its `bufio.Writer` keeps).
    pub(super) writes_blindly: bool,
    /// A whole message has to come within the limit, and not each of its pieces (`NoiseListener.Accept` puts no
    /// `timeoutConn` around the stream).
    pub(super) reads_whole: bool,
}

impl Quirks {
    pub(super) fn of(dialect: Dialect, transport: &Transport) -> Self {
        let is_secret = *transport == Transport::SecretConnection;
        Self {
            keeps_wishes: dialect >= Dialect::V0_37,
            keeps_missed_ticks: dialect <= Dialect::V0_38,
            forgets_streams: is_secret && !matches!(dialect, Dialect::V0_39 | Dialect::V0_40),
            writes_blindly: is_secret && dialect >= Dialect::V0_39,
            reads_whole: matches!(transport, Transport::Noise { .. }),
        }
    }
}
