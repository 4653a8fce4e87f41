//! What most cases make of an answer: signed, repeated, refused.

use monosign_protocol::message::{Message, RemoteSignerError};

use super::bench::{Bench, FIRST, Reply};
use super::case::Failed;
use crate::node::probes::time_of;
use crate::node::{Answer, Misbehaviour, Signed};

impl Bench {
    /// The answer, which has to come.
    pub(super) async fn answer(&mut self, request: &Message) -> Result<Option<Message>, Failed> {
        self.answer_on(FIRST, request).await
    }

    pub(super) async fn answer_on(
        &mut self,
        which: usize,
        request: &Message,
    ) -> Result<Option<Message>, Failed> {
        if self.is_away(which) {
            self.ready_on(which).await?;
        }
        let limit = self.limits.answer;
        match self.reply_on(which, request).await {
            Reply::Answer(answer) => Ok(answer),
            Reply::Lost(error) => Err(error.into()),
            Reply::Silent => Err(Failed::Silent { limit }),
        }
    }

    /// What a node makes of an answer, signatures of extensions aside, which are a matter of their own.
    pub(super) fn check(&self, request: &Message, answer: Option<Message>) -> Result<Answer, Misbehaviour> {
        self.verifier.check(request, answer.map(without_extensions))
    }

    /// It signs this.
    pub(super) async fn signs(&mut self, request: &Message) -> Result<Signed, Failed> {
        self.signs_on(FIRST, request).await
    }

    pub(super) async fn signs_on(&mut self, which: usize, request: &Message) -> Result<Signed, Failed> {
        let answer = self.answer_on(which, request).await?;
        match self.check(request, answer)? {
            Answer::Signed(signed) => Ok(signed),
            Answer::Refused { error, .. } => Err(Failed::Refused(error)),
            Answer::PublicKey(_) => Err(Misbehaviour::Unasked.into()),
        }
    }

    /// It gives its first signature at this place again, with the time that the signature covers.
    ///
    /// The node's own check would not do for a proposal of another time: the right answer covers the stored time, and the node
    /// looks at the signature alone.
    pub(super) async fn repeats(&mut self, first: &Signed, request: &Message) -> Result<(), Failed> {
        self.repeats_on(FIRST, first, request).await
    }

    pub(super) async fn repeats_on(
        &mut self,
        which: usize,
        first: &Signed,
        request: &Message,
    ) -> Result<(), Failed> {
        let answer = self.answer_on(which, request).await?;
        let not_repeated = Failed::NotRepeated { hrs: first.hrs };
        if let Some(Message::SignedProposalResponse(answer)) = &answer
            && answer.error.is_none()
            && answer.proposal.timestamp != first.timestamp
        {
            return Err(not_repeated);
        }
        let mut request = request.clone();
        if let Some(time) = time_of(&mut request) {
            *time = first.timestamp;
        }
        match self.check(&request, answer)? {
            Answer::Signed(again)
                if again.signature == first.signature && again.timestamp == first.timestamp =>
            {
                Ok(())
            }
            Answer::Refused { error, .. } => Err(Failed::Refused(error)),
            _ => Err(not_repeated),
        }
    }

    /// It does not sign this. An error is what should come; a connection that ends is taken for a refusal too, since
    /// [`answers_refusal`](Self::answers_refusal) is a rule of its own.
    pub(super) async fn refuses(&mut self, request: &Message) -> Result<(), Failed> {
        self.refuses_on(FIRST, request).await
    }

    pub(super) async fn refuses_on(&mut self, which: usize, request: &Message) -> Result<(), Failed> {
        if self.is_away(which) {
            self.ready_on(which).await?;
        }
        let reply = self.reply_on(which, request).await;
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::Lost(_) | Reply::Silent => {
                self.note("refused without an answer");
                return self.ready_on(which).await;
            }
        };
        match self.check(request, answer) {
            Ok(Answer::Refused { .. }) => Ok(()),
            Ok(Answer::Signed(signed)) => Err(Failed::NotRefused { hrs: signed.hrs }),
            Ok(Answer::PublicKey(_)) => Err(Failed::because("showed a key, which it had to refuse")),
            // No node could take a signature from that.
            Err(Misbehaviour::EmptyAnswer { .. } | Misbehaviour::WrongArm { .. }) => {
                self.note("refused without an error");
                Ok(())
            }
            Err(misbehaved) => Err(misbehaved.into()),
        }
    }

    /// It refuses with an error in the arm of the request, on a connection that stays up.
    pub(super) async fn answers_refusal(&mut self, request: &Message) -> Result<RemoteSignerError, Failed> {
        let answer = self.answer(request).await?;
        let error = match self.check(request, answer)? {
            Answer::Refused { error, .. } => error,
            Answer::Signed(signed) => return Err(Failed::NotRefused { hrs: signed.hrs }),
            Answer::PublicKey(_) => return Err(Failed::because("showed a key, which it had to refuse")),
        };
        self.is_still_there().await?;
        Ok(error)
    }

    /// A ping gets an answer on the same connection.
    pub(super) async fn is_still_there(&mut self) -> Result<(), Failed> {
        let limit = self.limits.answer;
        match self.reply(&Message::PingRequest).await {
            // As nodes do: any message shows that somebody is there.
            Reply::Answer(Some(_)) => Ok(()),
            Reply::Answer(None) => Err(Failed::because("a ping behind it got an empty answer")),
            Reply::Lost(error) => Err(Failed::because(format!("the connection did not stay up: {error}"))),
            Reply::Silent => Err(Failed::Silent { limit }),
        }
    }
}

fn without_extensions(mut answer: Message) -> Message {
    if let Message::SignedVoteResponse(answer) = &mut answer {
        answer.vote.extension_signature.clear();
        answer.vote.non_rp_extension_signature.clear();
    }
    answer
}
