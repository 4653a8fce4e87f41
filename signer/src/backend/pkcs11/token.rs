//! The `cryptoki` crate as a driver. It runs in the worker, and in commands.

use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use secrecy::{ExposeSecret as _, SecretString};

use super::KeyName;
use crate::backend::device::{DeviceError, Driver, Reply, Request};
use crate::pubkey::PublicKey;

/// A token that we are logged in to.
pub struct Token {
    session: Session,
    keys: Vec<KeyName>,
    /// The private keys that were found, by their place.
    found: Vec<Option<ObjectHandle>>,
    // Last, so that its session goes first.
    _module: Pkcs11,
}

/// A key on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID, in hexadecimal.
    pub id: String,
    /// CKA_EC_POINT, if there is a public key with it.
    pub public_key: Option<PublicKey>,
}

/// Why there is no session with a token, or why a key was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The library.
    #[error("cannot load `{module}`: {source}\nhint: `module` is the vendor's PKCS#11 library")]
    Module {
        /// Its path.
        module: String,
        /// Why.
        source: Error,
    },
    /// There is no such token.
    #[error(
        "no slot has a token with label `{0}`\nhint: `monosign pkcs11 slots --module LIBRARY` shows what is there"
    )]
    NoToken(String),
    /// There are several.
    #[error("{count} tokens have the label `{label}`: exactly one must")]
    ManyTokens {
        /// The label.
        label: String,
        /// How many there are.
        count: usize,
    },
    /// The token refuses the PIN, or would lock if it did.
    #[error("{0}")]
    Pin(&'static str),
    /// The token lets a key do more than it was told to.
    #[error(
        "the key is made, and the token lets it do more than sign: {0}\nhint: find out how the vendor limits what a key may do"
    )]
    MayMore(String),
    /// Anything else that the library says.
    #[error(transparent)]
    Library(#[from] Error),
}

/// What a signing key has no use for. What is left out here is as the vendor likes it.
const MAY_NOT: [(AttributeType, &str); 4] = [
    (AttributeType::Decrypt, "CKA_DECRYPT"),
    (AttributeType::Unwrap, "CKA_UNWRAP"),
    (AttributeType::SignRecover, "CKA_SIGN_RECOVER"),
    (AttributeType::Derive, "CKA_DERIVE"),
];

/// Makes a private key that may do nothing of that. A token that does not take all of these attributes is told without, and shows afterwards
/// what it has made of it.
fn limited<T>(
    private: &[Attribute],
    make: impl Fn(&[Attribute]) -> Result<T, Error>,
) -> Result<T, TokenError> {
    let may_not = [
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::SignRecover(false),
        Attribute::Derive(false),
    ];
    match make(&[private, &may_not].concat()) {
        Err(Error::Pkcs11(
            RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::AttributeReadOnly
            | RvError::TemplateInconsistent,
            _,
        )) => Ok(make(private)?),
        made => Ok(made?),
    }
}

/// DER of the object identifier 1.3.101.112, as RFC 8410 names the curve.
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];

impl Token {
    /// Loads the library, finds the token and logs in. A process does this once: a library cannot be loaded anew.
    ///
    /// # Errors
    /// [`TokenError`]; the PIN was tried once at the most.
    pub fn open(
        module: &Path,
        token_label: &str,
        pin: &SecretString,
        keys: Vec<KeyName>,
    ) -> Result<Self, TokenError> {
        let library = load(module)?;
        let slot = slot_of(&library, token_label)?;
        let info = library.get_token_info(slot)?;
        // Read-write, since commands make keys.
        let session = match info.write_protected() {
            true => library.open_ro_session(slot)?,
            false => library.open_rw_session(slot)?,
        };
        log_in(&session, &info, pin)?;
        let found = vec![None; keys.len()];
        Ok(Self { session, keys, found, _module: library })
    }

    /// The Ed25519 keys that can sign.
    ///
    /// # Errors
    /// [`TokenError::Library`]
    pub fn list(&self) -> Result<Vec<Found>, TokenError> {
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC_EDWARDS)];
        let mut keys = Vec::new();
        for key in self.session.find_objects(&template)? {
            let (mut label, mut id) = (String::new(), Vec::new());
            for attribute in self.session.get_attributes(key, &[AttributeType::Label, AttributeType::Id])? {
                match attribute {
                    Attribute::Label(bytes) => label = String::from_utf8_lossy(&bytes).into_owned(),
                    Attribute::Id(bytes) => id = bytes,
                    _ => {}
                }
            }
            let name = KeyName { label: Some(label.clone()), id: Some(id.clone()) };
            let public_key = self.point(key, &name).ok();
            keys.push(Found { label, id: data_encoding::HEXLOWER.encode(&id), public_key });
        }
        Ok(keys)
    }

    /// Makes a key that does not leave the token.
    ///
    /// # Errors
    /// [`TokenError::Library`]
    pub fn generate(&self, label: &str, id: &[u8]) -> Result<(), TokenError> {
        let (label, id) = (Attribute::Label(label.into()), Attribute::Id(id.to_vec()));
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(ED25519.to_vec()),
            label.clone(),
            id.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            label,
            id,
        ];
        let (_, made) = limited(&private, |private| {
            self.session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, private)
        })?;
        self.must_only_sign(made)
    }

    /// What a token has made of what it was told.
    fn must_only_sign(&self, key: ObjectHandle) -> Result<(), TokenError> {
        let asked: Vec<_> = MAY_NOT.iter().map(|(attribute, _)| *attribute).collect();
        let told = self.session.get_attributes(key, &asked)?;
        let may = |attribute: &Attribute| {
            matches!(
                attribute,
                Attribute::Decrypt(true)
                    | Attribute::Unwrap(true)
                    | Attribute::SignRecover(true)
                    | Attribute::Derive(true)
            )
        };
        let may: Vec<_> = told.iter().filter(|attribute| may(attribute)).collect();
        let name = |found: &Attribute| MAY_NOT.iter().find(|(may_not, _)| *may_not == found.attribute_type());
        let names: Vec<_> = may.iter().filter_map(|found| name(found)).map(|(_, name)| *name).collect();
        if names.is_empty() { Ok(()) } else { Err(TokenError::MayMore(names.join(", "))) }
    }

    /// Puts a key there.
    ///
    /// # Errors
    /// [`TokenError::Library`]
    pub fn import(
        &self,
        label: &str,
        id: &[u8],
        seed: &[u8; 32],
        public_key: &PublicKey,
    ) -> Result<(), TokenError> {
        let common = |class| {
            let params = Attribute::EcParams(ED25519.to_vec());
            let (label, id) = (Attribute::Label(label.into()), Attribute::Id(id.to_vec()));
            let kind = Attribute::KeyType(KeyType::EC_EDWARDS);
            vec![Attribute::Class(class), kind, Attribute::Token(true), params, label, id]
        };
        let mut private = common(ObjectClass::PRIVATE_KEY);
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Value(seed.to_vec()),
        ]);
        let made = limited(&private, |private| self.session.create_object(private))?;
        let mut public = common(ObjectClass::PUBLIC_KEY);
        let point = [&[0x04, 0x20], public_key.as_bytes().as_slice()].concat();
        public.extend([Attribute::Private(false), Attribute::Verify(true), Attribute::EcPoint(point)]);
        self.session.create_object(&public)?;
        self.must_only_sign(made)
    }

    fn key(&mut self, number: u16) -> Result<ObjectHandle, DeviceError> {
        match self.found.get(usize::from(number)) {
            Some(Some(handle)) => Ok(*handle),
            _ => self.find(number),
        }
    }

    /// Looks for a private key, which must be the only one of its name: labels and ids are not unique.
    fn find(&mut self, number: u16) -> Result<ObjectHandle, DeviceError> {
        let place = usize::from(number);
        let missing = |reason| DeviceError::NoKey { key: number, reason };
        let name =
            self.keys.get(place).ok_or_else(|| missing("the worker was told of no such key".into()))?;
        let found = self.matching(ObjectClass::PRIVATE_KEY, name)?;
        let one = match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(missing(format!("there is no Ed25519 key with {name}"))),
            many => Err(missing(format!(
                "{} keys have {name}: exactly one must\nhint: name it by label and id",
                many.len()
            ))),
        };
        self.found[place] = one.as_ref().ok().copied();
        one
    }

    /// Whether the key signs for whoever has logged in, as far as the token tells: what would be refused at each signature is refused before
    /// the first one.
    fn must_sign(&self, key: ObjectHandle) -> Result<(), DeviceError> {
        let asked = [AttributeType::AlwaysAuthenticate, AttributeType::Sign];
        let told = self.session.get_attributes(key, &asked).map_err(|error| failed(&error))?;
        let refused = |what: &str| Err(DeviceError::Refused(what.into()));
        if told.contains(&Attribute::AlwaysAuthenticate(true)) {
            return refused(
                "the key wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE), and nobody is there to give it\n\
                 hint: make a key without it: `monosign pkcs11 keys generate` does",
            );
        }
        if told.contains(&Attribute::Sign(false)) {
            return refused(
                "the key may not sign (CKA_SIGN is false)\nhint: name another key by its label and id",
            );
        }
        Ok(())
    }

    fn matching(&self, class: ObjectClass, name: &KeyName) -> Result<Vec<ObjectHandle>, DeviceError> {
        let mut template = vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC_EDWARDS)];
        template.extend(name.label.iter().map(|label| Attribute::Label(label.clone().into())));
        template.extend(name.id.iter().map(|id| Attribute::Id(id.clone())));
        self.session.find_objects(&template).map_err(|error| failed(&error))
    }

    /// Whether a key is there is what is asked, so it is looked for: a handle outlives its key.
    fn public_key(&mut self, number: u16) -> Result<PublicKey, DeviceError> {
        let private = self.find(number)?;
        self.must_sign(private)?;
        self.point(private, &self.keys[usize::from(number)])
    }

    /// CKA_EC_POINT of the public key beside a private one, or of the private one itself, which some tokens tell.
    fn point(&self, private: ObjectHandle, name: &KeyName) -> Result<PublicKey, DeviceError> {
        let holder = match self.matching(ObjectClass::PUBLIC_KEY, name)?.as_slice() {
            [public] => *public,
            _ => private,
        };
        let attributes =
            self.session.get_attributes(holder, &[AttributeType::EcPoint]).map_err(|error| failed(&error))?;
        let point = attributes.into_iter().find_map(|attribute| match attribute {
            Attribute::EcPoint(point) => point_bytes(&point),
            _ => None,
        });
        point.ok_or_else(|| {
            DeviceError::Refused(format!(
                "it does not show the public key with {name}\nhint: import the public key beside the private one, with the same label and id"
            ))
        })
    }
}

impl Driver for Token {
    fn perform(&mut self, request: &Request) -> Result<Reply, DeviceError> {
        match request {
            Request::PublicKey(number) => self.public_key(*number).map(Reply::PublicKey),
            Request::Sign { key, message } => {
                let handle = self.key(*key)?;
                let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
                let signature =
                    self.session.sign(&mechanism, handle, message).map_err(|error| failed(&error))?;
                let signature = <[u8; 64]>::try_from(signature.as_slice()).map_err(|_| {
                    DeviceError::Refused(format!("its signature has {} bytes, and not 64", signature.len()))
                })?;
                Ok(Reply::Signature(Box::new(signature)))
            }
            Request::LogHasRoom => Ok(Reply::LogHasRoom(true)),
            Request::Log | Request::MarkRead(_) => Err(DeviceError::Refused("it has no log".into())),
        }
    }
}

/// What each slot holds, without logging in.
///
/// # Errors
/// [`TokenError::Module`] and [`TokenError::Library`].
pub fn slots(module: &Path) -> Result<Vec<String>, TokenError> {
    let library = load(module)?;
    let mut slots = Vec::new();
    for slot in library.get_slots_with_token()? {
        let info = library.get_token_info(slot)?;
        let state = match (info.token_initialized(), info.user_pin_locked(), info.user_pin_count_low()) {
            (false, ..) => ", not initialized",
            (_, true, _) => ", PIN LOCKED",
            (.., true) => ", a wrong PIN was tried",
            _ => "",
        };
        let (label, model, serial) = (info.label(), info.model(), info.serial_number());
        slots.push(format!("slot {:#x}: token `{label}`, {model}, serial number {serial}{state}", slot.id()));
    }
    Ok(slots)
}

fn load(module: &Path) -> Result<Pkcs11, TokenError> {
    let at = |source| TokenError::Module { module: module.display().to_string(), source };
    let library = Pkcs11::new(module).map_err(at)?;
    library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(at)?;
    Ok(library)
}

fn slot_of(library: &Pkcs11, label: &str) -> Result<Slot, TokenError> {
    let mut found = Vec::new();
    for slot in library.get_slots_with_token()? {
        if library.get_token_info(slot)?.label() == label {
            found.push(slot);
        }
    }
    match found.as_slice() {
        [slot] => Ok(*slot),
        [] => Err(TokenError::NoToken(label.to_owned())),
        many => Err(TokenError::ManyTokens { label: label.to_owned(), count: many.len() }),
    }
}

/// Tokens lock after a few wrong PINs, so a program does not use up the last attempt.
fn may_log_in(pin_locked: bool, final_try: bool) -> Result<(), TokenError> {
    match (pin_locked, final_try) {
        (true, _) => Err(TokenError::Pin("the token's PIN is locked")),
        (_, true) => {
            Err(TokenError::Pin("the token has one attempt at its PIN left, which is not used up here"))
        }
        (false, false) => Ok(()),
    }
}

fn log_in(session: &Session, info: &TokenInfo, pin: &SecretString) -> Result<(), TokenError> {
    may_log_in(info.user_pin_locked(), info.user_pin_final_try())?;
    let pin = AuthPin::new(pin.expose_secret().into());
    match session.login(UserType::User, Some(&pin)) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(
            RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked,
            _,
        )) => Err(TokenError::Pin("the token refuses the PIN")),
        Err(error) => Err(error.into()),
    }
}

/// A point of 32 bytes as PKCS#11 3.0 has it, or in an OCTET STRING as before.
fn point_bytes(point: &[u8]) -> Option<PublicKey> {
    let bare = match point {
        [0x04, 0x20, bare @ ..] => bare,
        bare => bare,
    };
    bare.try_into().ok().map(PublicKey::from_bytes)
}

/// Whatever the library says, the session may be gone, and the handles with it.
fn failed(error: &Error) -> DeviceError {
    DeviceError::Lost { reason: error.to_string(), session_spent: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_at_a_pin_is_never_used_up() {
        assert!(may_log_in(false, false).is_ok());
        for (locked, final_try) in [(true, false), (false, true), (true, true)] {
            assert!(matches!(may_log_in(locked, final_try), Err(TokenError::Pin(_))), "{locked} {final_try}");
        }
    }

    #[test]
    fn a_point_is_read_in_both_of_its_forms_and_no_other() {
        let bare = [7; 32];
        let wrapped = [&[0x04, 0x20], bare.as_slice()].concat();
        assert_eq!(point_bytes(&bare), Some(PublicKey::from_bytes(bare)));
        assert_eq!(point_bytes(&wrapped), Some(PublicKey::from_bytes(bare)));
        assert_eq!(point_bytes(&[7; 33]), None);
        assert_eq!(point_bytes(&[]), None);
    }
}
