//! A chain whose key is shared: the share, the group and the record of this cosigner, and whether enough
//! others are there.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::report::{Finding, Level};
use super::{DIAL, Looked, refused};
use crate::cli::{Failure, block_on, unlock_env};
use crate::config::{ChainConfig, Endpoint, ThresholdConfig};
use crate::record::Record;
use crate::seams::Seams;
use crate::start::StartError;
use crate::threshold::ceremony::journal::Journal;
use crate::threshold::cosigner::Rejoin;
use crate::threshold::incarnation::Lives;
use crate::threshold::message::Place;
use crate::threshold::open as cosigner;
use crate::threshold::open::OpenError;
use crate::threshold::tls;

/// How long a peer takes to say that it does not know us.
const REFUSAL: Duration = Duration::from_millis(500);

/// The share, the group and the record.
pub(super) fn look(
    chain: &ChainConfig,
    share: &ThresholdConfig,
) -> Result<(Looked, Option<Cosigner>), Failure> {
    let id = &chain.id;
    let mut looked = Looked::default();
    let seams = Seams::production();
    let opened = block_on(async {
        cosigner::explain(share, &chain.record, &seams).await?;
        let opened = cosigner::open(share, id, &unlock_env(), &*seams.disk).await?;
        Journal::admit(&*seams.disk, &chain.record, opened.share.epoch()).await?;
        Ok::<_, OpenError>(opened)
    })?;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            looked.findings.push(refused(chain, StartError::from(error)));
            return Ok((looked, None));
        }
    };
    let (me, key) = (opened.share.id(), opened.group.public_key());
    looked.public_key = Some(key);
    looked.findings.push(Finding::of_chain(Level::Good, id, format!("cosigner {me} of key {key}")));
    looked.findings.push(Finding::of_chain(Level::Good, id, opened.group.shape().profile()));
    let identity = opened.share.identity().verifying_key().to_bytes();
    let (peeked, lives) = block_on(async {
        let peeked = match Record::peek(&*seams.disk, &chain.record).await {
            Ok((header, watermark)) => {
                header.is_of(&chain.record, id, Some(key.as_bytes())).map(|()| (header, watermark))
            }
            Err(error) => Err(error),
        };
        let peeked = match peeked {
            Ok((header, watermark)) => {
                let user = Record::user_of_share(&*seams.disk, &header, identity).await;
                // Whoever has the whole key keeps cosigners away, too.
                let sole = Record::user(&*seams.disk, &header).await;
                Ok((watermark, user.or(sole)))
            }
            Err(error) => Err(error),
        };
        (peeked, Lives::load(&*seams.disk, &Lives::path(&chain.record)).await)
    })?;
    match peeked {
        Ok((watermark, user)) => {
            let path = chain.record.display();
            let text = format!("record {path}, last signed h/r/s {watermark}");
            looked.findings.push(Finding::of_chain(Level::Good, id, text));
            looked.watermark = Some(watermark);
            looked.user = user;
        }
        Err(error) => {
            looked.findings.push(refused(chain, StartError::from(error)));
            return Ok((looked, None));
        }
    }
    let lives = match lives {
        Ok(lives) => lives.unwrap_or_default(),
        Err(error) => {
            looked.findings.push(Finding::of_chain(Level::Bad, id, OpenError::from(error).to_string()));
            return Ok((looked, None));
        }
    };
    let stands_at = looked.watermark.as_ref().map(Place::of).unwrap_or_default();
    let is_settled = lives.settled && stands_at >= lives.record;
    Ok((looked, Some(Cosigner { opened, is_settled })))
}

/// A cosigner that could be opened.
pub(super) struct Cosigner {
    opened: cosigner::Opened,
    /// Whether a start needs no more than a quorum.
    is_settled: bool,
}

impl Cosigner {
    /// Whether it could listen, unless it does already, and whether enough of the others are there for it to
    /// take part.
    pub(super) fn look_around(
        &self,
        chain: &ChainConfig,
        share: &ThresholdConfig,
        offline: bool,
        runs: bool,
    ) -> Result<Vec<Finding>, Failure> {
        let id = &chain.id;
        let obstacle = if runs { None } else { cannot_listen(&share.listen) };
        let mut findings: Vec<_> = obstacle
            .map(|why| {
                let text = format!("cannot listen on `{}`: {why}", share.listen);
                Finding::of_chain(Level::Bad, id, text).next(
                    "stop the process that listens there, or name a free address of this host in `listen`",
                )
            })
            .into_iter()
            .collect();
        if offline {
            findings.push(Finding::of_chain(Level::Good, id, "other cosigners: not dialed"));
            return Ok(findings);
        }
        let answers = block_on(self.dial(share))?;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                let error = OpenError::Transport(error);
                findings.push(refused(chain, StartError::from(error)));
                return Ok(findings);
            }
        };
        let mut absent = Vec::new();
        for (member, endpoint, answer) in &answers {
            let place = format!("cosigner {member} at {endpoint}");
            findings.push(match answer {
                Ok(()) => Finding::at(Level::Good, place, "reached").about(id),
                Err(why) => {
                    absent.push(member.to_string());
                    Finding::at(Level::Warning, place, why).about(id).next(
                        "`monosign start` on its host; if it runs, see that `addr` here is where it listens, and \
                         that nothing is between",
                    )
                }
            });
        }
        let shape = self.opened.group.shape();
        let there = answers.len() - absent.len();
        let (threshold, rejoin) = (usize::from(shape.threshold()), shape.rejoin_quorum());
        let needs_rejoin = !self.is_settled || share.rejoin == Rejoin::Strict;
        let absent = absent.join(", ");
        let start = format!("`monosign start` on the hosts of cosigners {absent}, then look again");
        if there + 1 < threshold {
            let text = format!(
                "no quorum: {threshold} of {} must sign, and {} are there with this one",
                shape.members(),
                there + 1
            );
            findings.push(Finding::of_chain(Level::Bad, id, text).next(start));
        } else if needs_rejoin && there < rejoin {
            let why = if self.is_settled {
                "`rejoin` is `strict`"
            } else {
                "its disk is new or was found to be old, and too few have answered since"
            };
            let text =
                format!("it takes part once {rejoin} others have answered, and {there} are there: {why}");
            findings.push(Finding::of_chain(Level::Bad, id, text).next(start));
        }
        Ok(findings)
    }

    /// Shakes hands with each of the others, and says nothing.
    async fn dial(&self, share: &ThresholdConfig) -> std::io::Result<Vec<Answered>> {
        let seams = Seams::production();
        let identity = |member| self.opened.group.identity(member).copied();
        let peers: Vec<_> = share
            .peers
            .iter()
            .filter_map(|(member, endpoint)| Some((*member, endpoint.clone(), identity(*member)?)))
            .collect();
        let keys: Vec<[u8; 32]> = peers.iter().map(|(.., key)| *key).collect();
        let transport = seams.net.transport(self.opened.share.identity(), &keys)?;
        let tasks: Vec<_> = peers
            .into_iter()
            .map(|(member, endpoint, key)| {
                let (net, transport, to) = (seams.net.clone(), transport.clone(), endpoint.clone());
                let task = spawn_local(async move {
                    let secured = async {
                        let stream = net.dial(&to).await?;
                        transport.dial(stream, &key).await
                    };
                    let mut stream = match timeout(DIAL, secured).await {
                        Ok(Ok(stream)) => stream,
                        Ok(Err(error)) => return Err(tls::explained(&error)),
                        Err(_) => return Err(format!("no answer within {DIAL:?}")),
                    };
                    // Our end is through with the handshake before the other has looked who we are.
                    match timeout(REFUSAL, stream.read(&mut [0; 1])).await {
                        Err(_) | Ok(Ok(1..)) => Ok(()),
                        Ok(Ok(0)) => Err("closed by it right after the handshake".into()),
                        Ok(Err(error)) => Err(tls::explained(&error)),
                    }
                });
                (member, endpoint, task)
            })
            .collect();
        let mut answers = Vec::new();
        for (member, endpoint, task) in tasks {
            let answer = task.await.unwrap_or_else(|error| Err(error.to_string()));
            answers.push((member, endpoint, answer));
        }
        Ok(answers)
    }
}

type Answered = (crate::threshold::rounds::MemberId, Endpoint, Result<(), String>);

/// Why nobody could listen there, as far as can be told without doing so.
fn cannot_listen(endpoint: &Endpoint) -> Option<String> {
    let Endpoint::Tcp { host, port } = endpoint else { return None };
    let addresses: Vec<_> = match (host.as_str(), *port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Some(error.to_string()),
    };
    let of_this_host = |address: &&std::net::SocketAddr| std::net::UdpSocket::bind((address.ip(), 0)).is_ok();
    let Some(address) = addresses.iter().find(of_this_host) else {
        return Some("it is no address of this host".into());
    };
    let taken = std::net::TcpStream::connect_timeout(address, DIAL).is_ok();
    taken.then(|| "another process listens there".into())
}
