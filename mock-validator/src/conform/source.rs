//! Where rules come from. Files are CometBFT's, lines are v0.38.26's; where no other version is named, what stands there agrees
//! from v0.34 to v2.0-rc1.

pub(super) const CHECK_HRS: &str = "privval/file.go:100, CheckHRS (v0.38.26)";
pub(super) const SIGN_VOTE: &str = "privval/file.go:308, signVote (v0.38.26)";
pub(super) const SIGN_PROPOSAL: &str = "privval/file.go:373, signProposal (v0.38.26)";
pub(super) const ONLY_TIME: &str = "privval/file.go:430, checkVotesOnlyDifferByTimestamp (v0.38.26)";
pub(super) const ONLY_TIME_PROPOSAL: &str =
    "privval/file.go:450, checkProposalsOnlyDifferByTimestamp (v0.38.26)";
pub(super) const CANONICAL: &str = "types/canonical.go:18, CanonicalizeBlockID and on (v0.38.26)";
pub(super) const SIGN_AND_CHECK: &str = "types/vote.go:415, SignAndCheckVote (v0.38.26)";
pub(super) const CLIENT: &str = "privval/signer_client.go:71, GetPubKey (v0.38.26)";
pub(super) const RETRY: &str = "privval/retry_signer_client.go:66, SignVote (v0.38.26)";
pub(super) const HANDLER: &str =
    "privval/signer_requestHandler.go:14, DefaultValidationRequestHandler (v0.38.26)";
pub(super) const SERVER: &str = "privval/signer_server.go:61, servicePendingRequest (v0.38.26)";
pub(super) const ENDPOINT: &str = "privval/signer_endpoint.go:81, ReadMessage (v0.38.26)";
pub(super) const LISTENER: &str =
    "privval/signer_listener_endpoint.go:184, serviceLoop and pingLoop (v0.38.26)";
pub(super) const DIALER: &str = "privval/socket_dialers.go:23, DialTCPFn (v0.38.26)";
pub(super) const SETUP: &str = "node/setup.go:614, createAndStartPrivValidatorSocketClient (v0.38.26)";
pub(super) const SECRET_CONNECTION: &str =
    "p2p/conn/secret_connection.go:95, MakeSecretConnection (v0.38.26)";
pub(super) const SECRET_FRAME: &str = "p2p/conn/secret_connection.go:232, Read (v0.38.26)";
/// It is no model: it misreads such a frame, and writes none.
pub(super) const EMPTY_FRAME: &str = "none: CometBFT writes no such frame, and its reader takes a stale byte behind one (libs/protoio/io.go:91, v0.38.26)";
pub(super) const PROTOIO: &str = "libs/protoio/reader.go:67, ReadMsg (v0.38.26)";
pub(super) const REPLAY: &str = "consensus/replay.go:94, catchupReplay (v0.38.26)";
pub(super) const VOTE_TYPE: &str =
    "privval/file.go:33, voteToStep, which panics; types/vote.go:282, ValidateBasic (v0.38.26)";
pub(super) const BLOCK_ID: &str =
    "types/canonical.go:18, CanonicalizeBlockID, which panics; types/block.go:1492, ValidateBasic (v0.38.26)";
pub(super) const VALIDATE: &str = "types/vote.go:282, ValidateBasic (v0.38.26)";
pub(super) const PROPOSE: &str = "consensus/state.go:1199, defaultDecideProposal (v0.38.26)";
pub(super) const LOAD_STATE: &str = "privval/file.go:198, loadFilePV (v0.38.26)";
pub(super) const SAVE_STATE: &str = "privval/file.go:413, saveSigned (v0.38.26)";
pub(super) const SYNC_STATE: &str = "libs/tempfile/tempfile.go:30, O_SYNC of WriteFileAtomic (v0.38.26)";
