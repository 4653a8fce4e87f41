//! Where rules come from. Files are CometBFT's; where no version is named they agree from v0.34 to v2.0-rc1.

pub(super) const CHECK_HRS: &str = "privval/file.go, CheckHRS";
pub(super) const SIGN_VOTE: &str = "privval/file.go, signVote";
pub(super) const SIGN_PROPOSAL: &str = "privval/file.go, signProposal";
pub(super) const ONLY_TIME: &str = "privval/file.go, checkVotesOnlyDifferByTimestamp";
pub(super) const CANONICAL: &str = "types/canonical.go";
pub(super) const SIGN_AND_CHECK: &str = "types/vote.go, SignAndCheckVote (v0.38 on)";
pub(super) const CLIENT: &str = "privval/signer_client.go";
pub(super) const RETRY: &str = "privval/retry_signer_client.go";
pub(super) const HANDLER: &str = "privval/signer_requestHandler.go, DefaultValidationRequestHandler";
pub(super) const SERVER: &str = "privval/signer_server.go, servicePendingRequest";
pub(super) const ENDPOINT: &str = "privval/signer_endpoint.go, ReadMessage";
pub(super) const LISTENER: &str = "privval/signer_listener_endpoint.go";
pub(super) const DIALER: &str = "privval/socket_dialers.go, DialTCPFn";
pub(super) const SETUP: &str = "node/setup.go, createAndStartPrivValidatorSocketClient";
pub(super) const SECRET_CONNECTION: &str = "p2p/conn/secret_connection.go";
pub(super) const PROTOIO: &str = "libs/protoio/reader.go";
pub(super) const REPLAY: &str = "consensus/replay.go, catchupReplay";
pub(super) const VALIDATE: &str = "types/vote.go and types/block.go, ValidateBasic";
pub(super) const LOAD_STATE: &str = "privval/file.go, loadFilePV";
pub(super) const SAVE_STATE: &str = "privval/file.go, saveSigned";
