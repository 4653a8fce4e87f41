//! The rules that a signer can break, one at a time.

macro_rules! faults {
    ($($fault:ident,)*) => {
        /// What a signer does wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($fault,)*
        }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$fault,)*];
        }
    };
}

faults! {
    // Of the public key.
    ShowsKeyInOldFormOnly,
    ShowsAnotherKeyAfterReconnect,
    ShowsKeyToAnyChain,
    // Of what has to be signed.
    RefusesPrevoteAfterProposal,
    NilAsZeroHash,
    RefusesLateRounds,
    RefusesSkippedSteps,
    RefusesSkippedHeights,
    LeavesOutLockRound,
    PartsIn16Bits,
    PartialIdIsNil,
    EpochForZeroTime,
    RefusesEarlierTime,
    // Of extensions.
    NoExtensionSignature,
    NoSignatureOfEmptyExtension,
    ExtensionSignatureOnPrevote,
    ExtensionSignatureOnNilPrecommit,
    RepeatsOldExtensionSignature,
    RefusesOtherExtension,
    SignsSkippedExtension,
    NoSecondExtensionSignature,
    RefusesLongRequests,
    SignsTwoKibibytesAtMost,
    SendsExtensionBack,
    SignsExtensionOfPrevote,
    SignsExtensionOfNilPrecommit,
    // Of repeats.
    RefusesRepeats,
    LaterVoteSignedAnew,
    EarlierVoteSignedAnew,
    ProposalSignedAnew,
    NilVoteSignedAnew,
    ComparesVoter,
    ForgetsMessageOnReconnect,
    ForgetsMessageOnRefusal,
    // Of conflicts.
    SignsOtherPrevote,
    SignsOtherPrecommit,
    SignsOtherProposal,
    SignsNilAfterBlock,
    SignsBlockAfterNil,
    IgnoresPartsHash,
    IgnoresPartsTotal,
    IgnoresLockRound,
    LaterTimeExcuses,
    EarlierTimeExcuses,
    RepeatUnlocks,
    StatePerConnection,
    NoConflictInLaterRounds,
    IgnoresChainAtItsPlace,
    GivesInTheThirdTime,
    // Of regressions.
    SignsHeightBelow,
    SignsHeightBelowInLaterRound,
    SignsHeightFarBelow,
    SignsRoundBelow,
    SignsRoundBelowAtLaterStep,
    SignsProposalAfterVote,
    SignsPrevoteAfterPrecommit,
    RepeatsWhatItOnceSigned,
    SignsHeightZero,
    SignsNegativeRound,
    // Of refusals.
    ClosesOnConflict,
    ClosesOnRegression,
    SignsVoteOfOtherChain,
    SignsProposalOfOtherChain,
    DiesOfVoteType,
    DiesOfBlockHash,
    DiesOfPartsHash,
    DiesOfMissingVote,
    DiesOfMissingProposal,
    DiesOfUnknownMessage,
    DiesOfMalformedMessage,
    DiesOfAnswer,
    SilentOnMalformed,
    SignsRawBytes,
    SignsVoteAsExtension,
    // Of framing.
    NeedsWholeMessages,
    OneMessagePerRead,
    DiesOfEmptyMessage,
    DiesOfLongLength,
    DiesOfBadLength,
    // Of sealed frames.
    AnswersAlteredFrames,
    TakesFramesTwice,
    TakesFramesAhead,
    TakesLongFrames,
    ReadsPadding,
    NeedsWholeFrames,
    ClosesOnEmptyFrame,
    KeepsConnectionAfterAlteredFrame,
    // Of the handshake.
    TakesLowOrderPoints,
    TakesWrongSignature,
    TakesAnyIdentityType,
    TakesAlteredProof,
    ReusesEphemeralKey,
    TalksWithItself,
    TakesLowOrderIdentity,
    NeedsWholeHandshake,
    DropsBehindHandshake,
    ReadsAnyHello,
    DiesWhenHandshakeIsClosed,
    // Of the link.
    AnswersPingWithAKey,
    HurriesSlowValidators,
    SignsHalfARequest,
    RefusesAfterLostAnswer,
    ImpatientWhenIdle,
    // Of coming back.
    SlowAfterReset,
    StaysOnCleanEnd,
    HalfASecondToComeBack,
    GivesUpOnRefusedPort,
    NeverLeavesSilence,
    LeaksSockets,
    DiesInTheBacklog,
    SignsForTwinBehind,
    RefusesAfterBlockSync,
    RefusesNextHeightAfterReconnect,
    NewSocketNotDialed,
    // Of two validators.
    ChecksBeforeItWaits,
    SecondTimeForSecond,
    OneEndsBoth,
    // Of restarts.
    ForgetsMessageOnRestart,
    ForgetsBlockOnRestart,
    ForgetsStepOnRestart,
    SavesAfterAnswering,
    NeverFlushes,
    BeginsAnewWithoutState,
    BeginsAnewWithHalfAState,
    BeginsAnewWithEmptyState,
    RefusesFirstAfterRestart,
    // Under load.
    Slow,
    WrongAfterManySignatures,
    ClosesOnOtherChain,
    // In situations.
    SulksAfterProposalConflict,
    SulksAfterManyRefusals,
    CountsTries,
    AnotherExtensionAfterReconnectRefused,
    RefusesAfterOutOfStep,
}
