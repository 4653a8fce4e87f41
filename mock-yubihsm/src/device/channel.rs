//! The secure channel of one session: GlobalPlatform SCP03 (GPC_SPE_014) with AES-128, as YubiHSM 2 uses it. Both ends of it: what
//! a device does, and, for [`Host`](crate::Host), what its other end does.

use aes::Aes128;
use aes::cipher::block_padding::Iso7816;
use aes::cipher::{
    BlockDecryptMut as _, BlockEncrypt as _, BlockEncryptMut as _, InnerIvInit as _, KeyInit as _,
};
use cmac::{Cmac, Mac as _};
use subtle::ConstantTimeEq as _;

use super::codes::{DeviceError, command};
use super::frame;

/// The bytes of a truncated MAC, of a challenge and of a cryptogram.
pub(crate) const SHORT: usize = 8;
const KEY: usize = 16;

/// The keys and counters that host and device share.
pub(crate) struct Channel {
    session: u8,
    enc: [u8; KEY],
    mac: [u8; KEY],
    rmac: [u8; KEY],
    context: [u8; 2 * SHORT],
    /// The MAC of the command before, which the next one continues.
    chain: [u8; KEY],
    /// 0 until the host has proven that it knows the key.
    counter: u32,
}

impl Channel {
    /// The channel that an authentication key (16 bytes to encrypt, 16 for MACs) and two challenges make.
    pub(crate) fn new(session: u8, key: &[u8; 2 * KEY], host: [u8; SHORT], card: [u8; SHORT]) -> Self {
        let mut context = [0; 2 * SHORT];
        context[..SHORT].copy_from_slice(&host);
        context[SHORT..].copy_from_slice(&card);
        let (enc, mac) = (&key[..KEY], &key[KEY..]);
        Self {
            session,
            enc: derive(enc, 4, &context),
            mac: derive(mac, 6, &context),
            rmac: derive(mac, 7, &context),
            context,
            chain: [0; KEY],
            counter: 0,
        }
    }

    /// What proves to the host that the device knows the key.
    pub(crate) fn card_cryptogram(&self) -> [u8; SHORT] {
        derive(&self.mac, 0, &self.context)
    }

    /// Takes the host's proof, in the whole frame of its command.
    pub(crate) fn authenticate(&mut self, request: &[u8]) -> Result<(), DeviceError> {
        let cryptogram: [u8; SHORT] = derive(&self.mac, 1, &self.context);
        let body = self.verified(request)?;
        if self.counter != 0 || !bool::from(body.ct_eq(&cryptogram)) {
            return Err(DeviceError::AuthenticationFailed);
        }
        self.counter = 1;
        Ok(())
    }

    /// The command inside a session message, given as a whole frame.
    pub(crate) fn open(&mut self, request: &[u8]) -> Result<Vec<u8>, DeviceError> {
        if self.counter == 0 {
            return Err(DeviceError::InvalidSession);
        }
        let mut body = self.verified(request)?.to_vec();
        let cipher = self.cipher();
        let decryptor = cbc::Decryptor::inner_iv_init(cipher.clone(), &self.iv(&cipher));
        let plain = decryptor.decrypt_padded_mut::<Iso7816>(&mut body).map(<[u8]>::to_vec);
        // The counter has moved on whether or not the content makes sense.
        plain.map_err(|_| {
            self.counter += 1;
            DeviceError::InvalidData
        })
    }

    /// The session message that answers the command opened last.
    pub(crate) fn seal(&mut self, answer: &[u8]) -> Vec<u8> {
        let cipher = self.cipher();
        let encryptor = cbc::Encryptor::inner_iv_init(cipher.clone(), &self.iv(&cipher));
        self.counter += 1;
        let mut data = vec![self.session];
        data.extend(encryptor.encrypt_padded_vec_mut::<Iso7816>(answer));
        let len = ((data.len() + SHORT) as u16).to_be_bytes();
        let tag = cmac(&self.rmac, &[&self.chain, &[command::SESSION_MESSAGE | 0x80], &len, &data]);
        data.extend(&tag[..SHORT]);
        frame::answer(command::SESSION_MESSAGE, &data)
    }

    /// The host's end: whether the device knows the key.
    pub(crate) fn is_card(&self, cryptogram: &[u8]) -> bool {
        self.card_cryptogram().ct_eq(cryptogram).into()
    }

    /// The host's end: the frame that proves that the host knows the key. The device's answer is not secured, and starts the counter.
    pub(crate) fn host_proof(&mut self) -> Vec<u8> {
        let cryptogram: [u8; SHORT] = derive(&self.mac, 1, &self.context);
        let frame = self.signed(command::AUTHENTICATE_SESSION, &cryptogram);
        self.counter = 1;
        frame
    }

    /// The host's end: a command as a session message.
    pub(crate) fn seal_command(&mut self, plain: &[u8]) -> Vec<u8> {
        let cipher = self.cipher();
        let encryptor = cbc::Encryptor::inner_iv_init(cipher.clone(), &self.iv(&cipher));
        self.signed(command::SESSION_MESSAGE, &encryptor.encrypt_padded_vec_mut::<Iso7816>(plain))
    }

    /// The host's end: the answer inside the data of a session message. The counter moves on once the MAC has been seen to be right,
    /// as in the `yubihsm` crate.
    pub(crate) fn open_answer(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let (data, mac) = data.split_at_checked(data.len().checked_sub(SHORT)?)?;
        let len = ((data.len() + SHORT) as u16).to_be_bytes();
        let tag = cmac(&self.rmac, &[&self.chain, &[command::SESSION_MESSAGE | 0x80], &len, data]);
        if !bool::from(tag[..SHORT].ct_eq(mac)) || data.first() != Some(&self.session) {
            return None;
        }
        let mut body = data[1..].to_vec();
        let cipher = self.cipher();
        let decryptor = cbc::Decryptor::inner_iv_init(cipher.clone(), &self.iv(&cipher));
        self.counter += 1;
        decryptor.decrypt_padded_mut::<Iso7816>(&mut body).ok().map(<[u8]>::to_vec)
    }

    /// A frame of a session number, a body and a MAC, which the next one continues.
    fn signed(&mut self, code: u8, body: &[u8]) -> Vec<u8> {
        let mut data = vec![self.session];
        data.extend(body);
        let len = ((data.len() + SHORT) as u16).to_be_bytes();
        self.chain = cmac(&self.mac, &[&self.chain, &[code], &len, &data]);
        data.extend(&self.chain[..SHORT]);
        frame::frame(code, &data)
    }

    /// What lies between a frame's session number and its MAC, if the MAC is right.
    fn verified<'a>(&mut self, request: &'a [u8]) -> Result<&'a [u8], DeviceError> {
        let signed = request.len().checked_sub(SHORT).filter(|len| *len >= 4);
        let (signed, mac) = request.split_at(signed.ok_or(DeviceError::WrongLength)?);
        let tag = cmac(&self.mac, &[&self.chain, signed]);
        if !bool::from(tag[..SHORT].ct_eq(mac)) {
            return Err(DeviceError::AuthenticationFailed);
        }
        self.chain = tag;
        Ok(&signed[4..])
    }

    fn cipher(&self) -> Aes128 {
        Aes128::new(&self.enc.into())
    }

    fn iv(&self, cipher: &Aes128) -> aes::Block {
        let mut iv = aes::Block::default();
        iv[12..].copy_from_slice(&self.counter.to_be_bytes());
        cipher.encrypt_block(&mut iv);
        iv
    }
}

/// SCP03's key derivation (NIST SP 800-108 in counter mode, with CMAC).
fn derive<const N: usize>(key: &[u8], constant: u8, context: &[u8; 2 * SHORT]) -> [u8; N] {
    let mut label = [0; 16];
    label[11] = constant;
    label[13..15].copy_from_slice(&((N * 8) as u16).to_be_bytes());
    label[15] = 1;
    let mut out = [0; N];
    out.copy_from_slice(&cmac(key, &[&label, context])[..N]);
    out
}

fn cmac(key: &[u8], parts: &[&[u8]]) -> [u8; KEY] {
    let mut key_of = [0; KEY];
    key_of.copy_from_slice(key);
    let mut mac = <Cmac<Aes128> as cmac::Mac>::new(&key_of.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
