//! What a session's commands do.

use super::codes::{DeviceError, Type, algorithm, capability, command, origin};
use super::frame::Reader;
use super::log::CAPACITY;
use super::objects::{Content, Ed25519, LABEL, Object, delete_capability};
use super::{Call, Device, Firmware, Signed, wrap};

/// assume: any text.
const PART_NUMBER: &[u8] = b"MOCK";
const FORCE_AUDIT: u8 = 1;
const COMMAND_AUDIT: u8 = 3;

type Done = Result<Vec<u8>, DeviceError>;

/// The fields that all objects have when they are made.
struct New {
    id: u16,
    label: [u8; LABEL],
    domains: u16,
    capabilities: u64,
    algorithm: u8,
}

impl New {
    fn read(fields: &mut Reader<'_>) -> Result<Self, DeviceError> {
        Ok(Self {
            id: fields.u16()?,
            label: fields.array()?,
            domains: fields.u16()?,
            capabilities: fields.u64()?,
            algorithm: fields.u8()?,
        })
    }

    fn object(&self, origin: u8, delegated: u64, content: Content) -> Object {
        let Self { label, domains, capabilities, algorithm, .. } = *self;
        Object { label, domains, capabilities, delegated, algorithm, origin, sequence: 0, content }
    }
}

impl Call {
    fn needs(&self, capabilities: u64) -> Result<(), DeviceError> {
        let has = self.capabilities & capabilities == capabilities;
        has.then_some(()).ok_or(DeviceError::InsufficientPermissions)
    }

    /// A key gives no object more than was delegated to it, and puts none where it cannot go.
    fn may_make(&self, object: &Object) -> Result<(), DeviceError> {
        let capabilities = object.capabilities | object.delegated;
        let may = capabilities & !self.delegated == 0 && object.domains & !self.domains == 0;
        may.then_some(()).ok_or(DeviceError::InsufficientPermissions)
    }
}

impl Device {
    pub(super) fn execute(&mut self, call: &mut Call, code: u8, data: &[u8]) -> Done {
        let mut fields = Reader(data);
        let fields = &mut fields;
        match code {
            command::ECHO => Ok(data.to_vec()),
            command::DEVICE_INFO => self.info(data),
            command::STORAGE_INFO => Ok(self.storage()),
            command::CLOSE_SESSION | command::BLINK_DEVICE => Ok(Vec::new()),
            command::GET_PSEUDO_RANDOM => self.pseudo_random(call, fields),
            command::PUT_OPAQUE => self.put_opaque(call, fields),
            command::GET_OPAQUE => self.get_opaque(call, fields),
            command::PUT_AUTHENTICATION_KEY => self.put_authentication_key(call, fields),
            command::PUT_ASYMMETRIC_KEY => self.put_asymmetric_key(call, fields),
            command::GENERATE_ASYMMETRIC_KEY => self.generate_asymmetric_key(call, fields),
            command::PUT_WRAP_KEY => self.put_wrap_key(call, fields),
            command::LIST_OBJECTS => self.list(call, fields),
            command::GET_OBJECT_INFO => self.object_info(call, fields),
            command::DELETE_OBJECT => self.delete(call, fields),
            command::GET_PUBLIC_KEY => self.public_key(call, fields),
            command::SIGN_EDDSA => self.sign_eddsa(call, fields),
            command::EXPORT_WRAPPED => self.export_wrapped(call, fields),
            command::IMPORT_WRAPPED => self.import_wrapped(call, fields),
            command::SET_OPTION => self.set_option(call, fields),
            command::GET_OPTION => self.get_option(call, fields),
            command::GET_LOG_ENTRIES => {
                call.needs(capability::GET_LOG_ENTRIES)?;
                Ok(self.log.show())
            }
            command::SET_LOG_INDEX => {
                call.needs(capability::GET_LOG_ENTRIES)?;
                self.log.mark_read(fields.u16()?).map(|()| Vec::new())
            }
            command::RESET_DEVICE => {
                call.needs(capability::RESET_DEVICE)?;
                self.resets = true;
                Ok(Vec::new())
            }
            _ => Err(DeviceError::InvalidCommand),
        }
    }

    /// The device in a few bytes. From 2.4.0 on there is a second page with the number of its chip, which python-yubihsm asks for.
    pub(super) fn info(&self, page: &[u8]) -> Done {
        match page {
            [] | [0] => Ok(self.first_page()),
            [1] if self.firmware == Firmware::New => Ok(PART_NUMBER.to_vec()),
            _ => Err(DeviceError::InvalidData),
        }
    }

    fn first_page(&self) -> Vec<u8> {
        let mut out = self.firmware.version().to_vec();
        out.extend(self.serial.to_be_bytes());
        out.extend([CAPACITY as u8, self.log.used() as u8]);
        out.extend([
            algorithm::ED25519,
            algorithm::AES128_YUBICO_AUTHENTICATION,
            algorithm::OPAQUE_DATA,
            algorithm::AES128_CCM,
            algorithm::AES256_CCM,
        ]);
        out.extend(&self.extra_algorithms);
        out
    }

    fn storage(&self) -> Vec<u8> {
        let used = self.objects.len() as u16;
        [256, 256 - used, 1024, 1024 - used, 126].iter().flat_map(|n: &u16| n.to_be_bytes()).collect()
    }

    fn pseudo_random(&mut self, call: &Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::GET_PSEUDO_RANDOM)?;
        let len = usize::from(fields.u16()?);
        if len > self.firmware.max_frame() - 3 {
            return Err(DeviceError::InvalidData);
        }
        let mut out = vec![0; len];
        (self.entropy)(&mut out);
        Ok(out)
    }

    fn put(&mut self, call: &mut Call, kind: Type, id: u16, object: Object) -> Done {
        call.target = id;
        call.may_make(&object)?;
        let id = self.number(kind, id);
        call.target = id;
        self.objects.insert(kind, id, object)?;
        Ok(id.to_be_bytes().to_vec())
    }

    /// The number that was asked for, or any free one for 0.
    fn number(&mut self, kind: Type, asked: u16) -> u16 {
        let mut id = asked;
        while id == 0 || (asked == 0 && !self.objects.is_free(kind, id)) {
            let mut bytes = [0; 2];
            (self.entropy)(&mut bytes);
            id = u16::from_be_bytes(bytes);
        }
        id
    }

    fn put_opaque(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::PUT_OPAQUE)?;
        let new = New::read(fields)?;
        let object = new.object(origin::IMPORTED, 0, Content::Opaque(fields.rest().to_vec()));
        self.put(call, Type::Opaque, new.id, object)
    }

    fn get_opaque(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::GET_OPAQUE)?;
        call.target = fields.u16()?;
        match &self.objects.get(Type::Opaque, call.target, call.domains)?.content {
            Content::Opaque(bytes) => Ok(bytes.clone()),
            _ => Err(DeviceError::ObjectNotFound),
        }
    }

    fn put_authentication_key(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::PUT_AUTHENTICATION_KEY)?;
        let (new, delegated) = (New::read(fields)?, fields.u64()?);
        let key = Content::Authentication(fields.array()?);
        fields.end()?;
        let object = new.object(origin::IMPORTED, delegated, key);
        self.put(call, Type::AuthenticationKey, new.id, object)
    }

    fn put_asymmetric_key(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::PUT_ASYMMETRIC_KEY)?;
        let new = New::read(fields)?;
        if new.algorithm != algorithm::ED25519 {
            return Err(DeviceError::InvalidData);
        }
        let seed = fields.array()?;
        fields.end()?;
        let object = new.object(origin::IMPORTED, 0, Content::Ed25519(Ed25519::from_seed(&seed)));
        self.put(call, Type::AsymmetricKey, new.id, object)
    }

    fn generate_asymmetric_key(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::GENERATE_ASYMMETRIC_KEY)?;
        let new = New::read(fields)?;
        fields.end()?;
        if new.algorithm != algorithm::ED25519 {
            return Err(DeviceError::InvalidData);
        }
        let mut seed = [0; 32];
        (self.entropy)(&mut seed);
        let object = new.object(origin::GENERATED, 0, Content::Ed25519(Ed25519::from_seed(&seed)));
        self.put(call, Type::AsymmetricKey, new.id, object)
    }

    fn put_wrap_key(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::PUT_WRAP_KEY)?;
        let (new, delegated) = (New::read(fields)?, fields.u64()?);
        let key = fields.rest().to_vec();
        match (new.algorithm, key.len()) {
            (algorithm::AES128_CCM, 16) | (algorithm::AES256_CCM, 32) => {}
            _ => return Err(DeviceError::WrongLength),
        }
        let object = new.object(origin::IMPORTED, delegated, Content::Wrap(key));
        self.put(call, Type::WrapKey, new.id, object)
    }

    fn list(&self, call: &Call, fields: &mut Reader<'_>) -> Done {
        let (mut id, mut kind) = (None, None);
        while !fields.0.is_empty() {
            match fields.u8()? {
                1 => id = Some(fields.u16()?),
                2 => kind = Some(Type::from_u8(fields.u8()?)?),
                // The other filters are not needed here.
                _ => return Err(DeviceError::InvalidData),
            }
        }
        let mut out = Vec::new();
        if self.has_unknown_object && id.is_none() && kind.is_none() {
            // A symmetric key (yubihsm-shell `lib/yubihsm.h`, `YH_SYMMETRIC_KEY`), number 1.
            out.extend([0, 1, 0x08, 0]);
        }
        for ((type_, number), object) in self.objects.iter(call.domains) {
            if id.is_none_or(|id| id == *number) && kind.is_none_or(|kind| kind == *type_) {
                out.extend(number.to_be_bytes());
                out.extend([*type_ as u8, object.sequence]);
            }
        }
        Ok(out)
    }

    fn object_info(&self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.target = fields.u16()?;
        let kind = Type::from_u8(fields.u8()?)?;
        let object = self.objects.get(kind, call.target, call.domains)?;
        Ok(wrap::info(kind, call.target, object))
    }

    fn delete(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.target = fields.u16()?;
        let kind = Type::from_u8(fields.u8()?)?;
        call.needs(delete_capability(kind))?;
        self.objects.get(kind, call.target, call.domains)?;
        self.objects.remove(kind, call.target);
        Ok(Vec::new())
    }

    fn public_key(&self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.target = fields.u16()?;
        let key = self.ed25519(call)?;
        let mut out = vec![algorithm::ED25519];
        out.extend(key.public_key());
        Ok(out)
    }

    fn sign_eddsa(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.target = fields.u16()?;
        call.needs(capability::SIGN_EDDSA)?;
        let object = self.objects.get(Type::AsymmetricKey, call.target, call.domains)?;
        if object.capabilities & capability::SIGN_EDDSA == 0 {
            return Err(DeviceError::InsufficientPermissions);
        }
        let message = fields.rest();
        let mut signature = self.ed25519(call)?.sign(message);
        self.signatures += 1;
        if self.signs_wrongly {
            signature[7] ^= 1;
        }
        self.last_signed = Some(Signed { key: call.target, message: message.to_vec(), signature });
        Ok(signature.to_vec())
    }

    fn ed25519(&self, call: &Call) -> Result<&Ed25519, DeviceError> {
        match &self.objects.get(Type::AsymmetricKey, call.target, call.domains)?.content {
            Content::Ed25519(key) => Ok(key),
            _ => Err(DeviceError::InvalidData),
        }
    }

    fn export_wrapped(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.target = fields.u16()?;
        call.needs(capability::EXPORT_WRAPPED)?;
        let kind = Type::from_u8(fields.u8()?)?;
        call.second = fields.u16()?;
        let key = self.wrap_key(call, capability::EXPORT_WRAPPED)?.0;
        let object = self.objects.get(kind, call.second, call.domains)?;
        if object.capabilities & capability::EXPORTABLE_UNDER_WRAP == 0 {
            return Err(DeviceError::InsufficientPermissions);
        }
        let plain = wrap::serialize(kind, call.second, object);
        let mut nonce = [0; wrap::NONCE];
        (self.entropy)(&mut nonce);
        let mut out = nonce.to_vec();
        out.extend(wrap::seal(&key, nonce, &plain)?);
        Ok(out)
    }

    fn import_wrapped(&mut self, call: &mut Call, fields: &mut Reader<'_>) -> Done {
        call.target = fields.u16()?;
        call.needs(capability::IMPORT_WRAPPED)?;
        let (key, delegated) = self.wrap_key(call, capability::IMPORT_WRAPPED)?;
        let nonce = fields.array()?;
        let (kind, id, object) = wrap::deserialize(&wrap::open(&key, nonce, fields.rest())?)?;
        call.second = id;
        if object.capabilities & !delegated != 0 {
            return Err(DeviceError::InsufficientPermissions);
        }
        self.objects.insert(kind, id, object)?;
        let mut out = vec![kind as u8];
        out.extend(id.to_be_bytes());
        Ok(out)
    }

    /// A wrap key that may be used so, and what it may give to objects.
    fn wrap_key(&self, call: &Call, capability: u64) -> Result<(Vec<u8>, u64), DeviceError> {
        let object = self.objects.get(Type::WrapKey, call.target, call.domains)?;
        match &object.content {
            Content::Wrap(key) if object.capabilities & capability != 0 => {
                Ok((key.clone(), object.delegated))
            }
            Content::Wrap(_) => Err(DeviceError::InsufficientPermissions),
            _ => Err(DeviceError::InvalidData),
        }
    }

    fn set_option(&mut self, call: &Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::SET_OPTION)?;
        let (option, len) = (fields.u8()?, fields.u16()?);
        let value = fields.take(usize::from(len))?;
        match (option, value) {
            (FORCE_AUDIT, [force]) => self.log.set_force(*force)?,
            (COMMAND_AUDIT, pairs) => {
                for pair in pairs.chunks(2) {
                    let [code, value] = pair else { return Err(DeviceError::WrongLength) };
                    self.log.set_command(*code, *value)?;
                }
            }
            _ => return Err(DeviceError::InvalidData),
        }
        Ok(Vec::new())
    }

    fn get_option(&self, call: &Call, fields: &mut Reader<'_>) -> Done {
        call.needs(capability::GET_OPTION)?;
        match fields.u8()? {
            FORCE_AUDIT => Ok(vec![self.log.force()]),
            COMMAND_AUDIT => Ok(self.log.commands()),
            _ => Err(DeviceError::InvalidData),
        }
    }
}
