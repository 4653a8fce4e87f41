//! `monosign yubihsm setup`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use secrecy::{ExposeSecret as _, SecretString};
use yubihsm::audit::AuditOption;
use yubihsm::object::{Filter, Type};
use yubihsm::{Capability, Domain, authentication, wrap};
use zeroize::Zeroizing;

use super::roles::{DOMAIN, EXPORTABLE, Role, WRAP_KEY, roles};
use super::session::{DeviceArgs, Session, open, serial_is_typed, told};
use super::{Failure, options, session};
use crate::backend::yubihsm::Adapter;
use crate::cli::advice::{first_line, shell};
use crate::config::YubihsmProvider;
use crate::ops::private_file::{self, create_private};
use crate::seams::{Entropy as _, OsEntropy};

/// Arguments of `monosign yubihsm setup`.
#[derive(Debug, Args)]
pub(super) struct SetupArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// The directory for the passwords of the roles and the key of backups. What is there already is used, so that a second
    /// device is set up as the first one was.
    #[arg(long, value_name = "DIR")]
    secrets: PathBuf,
    /// Erase the device of this serial number without asking for it to be typed.
    #[arg(long, value_name = "SERIAL")]
    erase: Option<String>,
    /// Let the device refuse to sign while its log is full of unread entries.
    #[arg(long)]
    force_audit: bool,
}

/// The authentication key that stands in while the default one is replaced; the number that the yubihsm crate uses.
const TEMPORARY: u16 = 0xfffe;
/// How long a device takes to come back from a reset, at the most.
const RESET: Duration = Duration::from_secs(10);

pub(super) fn run(args: &SetupArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let provider = args.device.provider()?;
    let session = args.device.open_provider(&provider).map_err(|failure| again(args, failure))?;
    confirm(&session, args.erase.as_deref(), out)?;
    // Before the device is touched: a crash must not leave it with passwords that nobody knows.
    let secrets = Secrets::in_directory(&args.secrets, out)?;
    let admin = erase(session, &provider)?;
    secrets.put_roles(&admin, &provider)?;
    let admin = open(&provider, 1, secrets.password(&roles()[0])?)?;
    audit(&admin, args.force_audit)?;
    report(&admin, &provider, &secrets, out)
}

/// A device that does not know the factory's password any more was set up before, perhaps by us, with the
/// same directory.
fn again(args: &SetupArgs, failure: Failure) -> Failure {
    let admin = args.secrets.join(format!("{}.password", roles()[0].name));
    if args.device.names_a_key() || !failure.text().contains("refuses the password") || !admin.exists() {
        return failure;
    }
    Failure::new(format!(
        "{}: it is set up already\nhint: it can be used as it is. To erase it and set it up anew, the same command with \
         `--auth-key 1 --password-file {}`",
        first_line(failure.text()),
        shell(&admin)
    ))
}

/// Shows what is lost, and wants the serial number typed.
pub(super) fn confirm(session: &Session, given: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
    let serial = session.info()?.serial;
    let count = |filters: &[Filter]| session.client().list_objects(filters).map(|objects| objects.len());
    // The crate ends a list silently at a type that it does not know, so keys are asked for by themselves.
    let keys = count(&[Filter::Type(Type::AsymmetricKey)]).map_err(|error| told(&error))?;
    let objects = count(&[]).map_err(|error| told(&error))?.max(keys);
    writeln!(
        out,
        "YubiHSM {serial} holds at least {objects} objects, {keys} of them signing keys. ALL OF THEM ARE ERASED."
    )?;
    if !serial_is_typed(&serial, given, out)? {
        return Err(Failure::for_safety("that is not its serial number: nothing was erased"));
    }
    Ok(())
}

/// Resets the device and comes back as the default administrator.
pub(super) fn erase(session: Session, provider: &YubihsmProvider) -> Result<Session, Failure> {
    session.client().reset_device().map_err(|error| told(&error))?;
    drop(session);
    let mut waited = Duration::ZERO;
    loop {
        pause();
        waited += PAUSE;
        match open(provider, 1, "password".into()) {
            Ok(session) => return Ok(session),
            Err(error) if waited >= RESET => return Err(error),
            Err(_) => {}
        }
    }
}

const PAUSE: Duration = Duration::from_millis(250);

#[allow(clippy::disallowed_methods, reason = "a command that has nothing else to do")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The passwords of the roles and the key of backups, in files.
struct Secrets<'a>(&'a Path);

impl<'a> Secrets<'a> {
    fn in_directory(dir: &'a Path, out: &mut dyn Write) -> Result<Self, Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let secrets = Self(dir);
        for role in roles() {
            let mut bytes = Zeroizing::new([0; 20]);
            OsEntropy.fill(bytes.as_mut_slice());
            let password = Zeroizing::new(BASE32_NOPAD.encode(bytes.as_slice()));
            make(&secrets.password_file(&role), &password, out)?;
        }
        let key = Zeroizing::new((&OsEntropy as &dyn crate::seams::Entropy).key());
        make(&secrets.wrap_key_file(), &Zeroizing::new(HEXLOWER.encode(key.as_slice())), out)?;
        Ok(secrets)
    }

    fn password_file(&self, role: &Role) -> PathBuf {
        self.0.join(format!("{}.password", role.name))
    }

    fn wrap_key_file(&self) -> PathBuf {
        self.0.join("wrap.key")
    }

    fn password(&self, role: &Role) -> Result<SecretString, Failure> {
        let content = private_file::read_private(&self.password_file(role))?;
        let text = Zeroizing::new(String::from_utf8_lossy(&content).trim().to_owned());
        if text.len() < 20 {
            let path = self.password_file(role);
            return Err(Failure::new(format!(
                "`{}` holds less than 20 characters\nhint: remove it, and a good one is made",
                path.display()
            )));
        }
        Ok(text.as_str().into())
    }

    fn wrap_key(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let content = private_file::read_private(&self.wrap_key_file())?;
        let key = HEXLOWER_PERMISSIVE.decode(content.trim_ascii()).map(Zeroizing::new).ok();
        key.filter(|key| key.len() == 32)
            .ok_or_else(|| Failure::new(format!("`{}` is not 64 hex digits", self.wrap_key_file().display())))
    }

    /// Replaces the default administrator by the four roles, and puts the key of backups there.
    fn put_roles(&self, default: &Session, provider: &YubihsmProvider) -> Result<(), Failure> {
        let temporary =
            Zeroizing::new(BASE32_NOPAD.encode(&(&OsEntropy as &dyn crate::seams::Entropy).key()));
        let temporary = SecretString::from(temporary.as_str());
        let all = Role {
            id: TEMPORARY,
            name: "setup",
            domains: Domain::all(),
            capabilities: Capability::all(),
            delegated: Capability::all(),
        };
        put_role(default, &all, &temporary)?;
        let setup = open(provider, TEMPORARY, temporary)?;
        let delete = |session: &Session, id| session.client().delete_object(id, Type::AuthenticationKey);
        delete(&setup, 1).map_err(|error| told(&error))?;
        for role in roles() {
            put_role(&setup, &role, &self.password(&role)?)?;
        }
        let may = Capability::EXPORT_WRAPPED | Capability::IMPORT_WRAPPED;
        let (label, key) = ("monosign backups".into(), self.wrap_key()?.to_vec());
        let kind = wrap::Algorithm::Aes256Ccm;
        let put = setup.client().put_wrap_key(WRAP_KEY, label, DOMAIN, may, EXPORTABLE, kind, key);
        put.map_err(|error| told(&error))?;
        let admin = open(provider, 1, self.password(&roles()[0])?)?;
        delete(&admin, TEMPORARY).map_err(|error| told(&error))
    }
}

/// Makes a file unless it is there.
fn make(path: &Path, content: &str, out: &mut dyn Write) -> Result<(), Failure> {
    if path.exists() {
        return Ok(writeln!(out, "kept {}", path.display())?);
    }
    create_private(path, content.as_bytes())?;
    Ok(writeln!(out, "made {}", path.display())?)
}

pub(super) fn put_role(session: &Session, role: &Role, password: &SecretString) -> Result<(), Failure> {
    let key = authentication::Key::derive_from_password(password.expose_secret().as_bytes());
    let label = format!("monosign {}", role.name);
    let put = session.client().put_authentication_key(
        role.id,
        label.as_str().into(),
        role.domains,
        role.capabilities,
        role.delegated,
        authentication::Algorithm::YubicoAes,
        key,
    );
    put.map(drop).map_err(|error| told(&error))
}

fn audit(admin: &Session, force: bool) -> Result<(), Failure> {
    let client = admin.client();
    options::set_all(client).map_err(|error| told(&error))?;
    if force {
        client.set_force_audit_option(AuditOption::On).map_err(|error| told(&error))?;
    }
    Ok(())
}

/// Opens a session as the validator, and says what there is and how it goes on.
fn report(
    admin: &Session,
    provider: &YubihsmProvider,
    secrets: &Secrets<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let [_, _, _, validator] = roles();
    session::open(provider, validator.id, secrets.password(&validator)?)?.info()?;
    let info = admin.info()?;
    writeln!(out, "\nYubiHSM {} with firmware {} is set up:", info.serial, info.firmware)?;
    for role in roles() {
        writeln!(
            out,
            "  {:<10} authentication key {:#06x}, {}",
            role.name,
            role.id,
            secrets.password_file(&role).display()
        )?;
    }
    writeln!(out, "  backups    wrap key {WRAP_KEY:#06x}, {}", secrets.wrap_key_file().display())?;
    let (device, adapter) = ways_to(provider, &info.serial);
    let [_, operator, _, validator] = roles().map(|role| secrets.password_file(&role));
    writeln!(
        out,
        "\nTake all of these files but validator.password off this machine, once there is a key:\n  \
         monosign yubihsm keys generate 1 {device} --auth-key 2 --password-file {}\n\n\
         What the signer's configuration says of it, but for the name of the chain:\n\n{}\n\
         Then `monosign state init`, and `monosign yubihsm audit init`, from where on each signature must be ours.",
        operator.display(),
        table(&adapter, &info.serial, &validator)
    )?;
    Ok(())
}

/// How a device is named on the command line, and in a configuration.
fn ways_to(provider: &YubihsmProvider, serial: &str) -> (String, String) {
    match &provider.adapter {
        Adapter::Http { host, port } => {
            let addr = format!("tcp://{host}:{port}");
            (format!("--connector {addr}"), format!("{{ type = \"http\", addr = \"{addr}\" }}"))
        }
        Adapter::Usb => (format!("--usb --serial {serial}"), "{ type = \"usb\" }".into()),
    }
}

/// The signer's table, with the witness, since signatures are audited from now on.
fn table(adapter: &str, serial: &str, password_file: &Path) -> String {
    let path = fs::canonicalize(password_file).unwrap_or_else(|_| password_file.into());
    let path = toml_edit::Value::from(path.display().to_string());
    format!(
        "[[providers.yubihsm]]\nadapter = {adapter}\nserial_number = \"{serial}\"\n\
         auth = {{ key = 4, password_file = {path} }}\nkeys = [{{ chain_ids = [\"CHAIN-ID\"], key = 1 }}]\n\
         audit = \"detect\"\n"
    )
}
