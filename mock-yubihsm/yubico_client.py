"""Yubico's own client, unpatched, against the double: what both take for granted has to be the same."""

import struct
import sys
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, AUDIT, CAPABILITY, COMMAND, ERROR, OBJECT
from yubihsm.exceptions import YubiHsmDeviceError
from yubihsm.objects import AsymmetricKey, AuthenticationKey

url, firmware = sys.argv[1:]
is_old = firmware == "2.2"
hsm = YubiHsm.connect(url)
info = hsm.get_device_info()
assert (info.version[:2], info.serial, info.log_size) == ((2, 2 if is_old else 4), 12345678, 62), info
session = hsm.create_session_derived(1, "password")


def log(after=None):
    """The log; the client follows its digests."""
    return session.get_log_entries(after).entries


first = log()
assert first[0].data == b"\0\1" + b"\xff" * 14
assert first[1].data == struct.pack("!HBHHHHBL", 2, 0, 0, 0xFFFF, 0, 0, 0, 0)
opened = [COMMAND.CREATE_SESSION, COMMAND.AUTHENTICATE_SESSION] if is_old else []
assert [entry.command for entry in first[2:]] == opened, first
audited = [code for code, option in session.get_command_audit().items() if option != AUDIT.OFF]
assert (COMMAND.SET_LOG_INDEX in audited, COMMAND.GET_PUBLIC_KEY in audited) == (is_old, is_old), audited
session.set_command_audit({code: AUDIT.OFF for code in audited})
session.set_command_audit({COMMAND.SIGN_EDDSA: AUDIT.FIXED})

private = Ed25519PrivateKey.generate()
key = AsymmetricKey.put(session, 9, "theirs", 1, CAPABILITY.SIGN_EDDSA, private)
public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
assert key.get_public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) == public
private.public_key().verify(key.sign_eddsa(b"x" * 120), b"x" * 120)
made = AsymmetricKey.generate(session, 0, "made", 1, CAPABILITY.SIGN_EDDSA, ALGORITHM.EC_ED25519)
made.get_public_key().verify(made.sign_eddsa(b"y"), b"y")
assert {found.id for found in session.list_objects(object_type=OBJECT.ASYMMETRIC_KEY)} == {9, made.id}
assert key.get_info().label == "theirs"
role = AuthenticationKey.put_derived(
    session, 4, "role", 1, CAPABILITY.SIGN_EDDSA | CAPABILITY.GET_LOG_ENTRIES, CAPABILITY.NONE, "role password"
)
with hsm.create_session_derived(4, "role password") as other:
    AsymmetricKey(other, 9).sign_eddsa(b"z")
    try:
        AsymmetricKey.generate(other, 0, "no", 1, CAPABILITY.NONE, ALGORITHM.EC_ED25519)
        sys.exit("a role made a key that may not")
    except YubiHsmDeviceError as error:
        assert error.code == ERROR.INSUFFICIENT_PERMISSIONS, error

entries = log()
last = entries[-1]
assert (last.command, last.session_key, last.target_key, last.length) == (COMMAND.SIGN_EDDSA, 4, 9, 3), last
assert last.digest == sha256(last.data + entries[-2].digest).digest()[:16]
session.set_log_index(last.number)
session.set_force_audit(AUDIT.ON)
for _ in range(62):
    key.sign_eddsa(b"full")
try:
    key.sign_eddsa(b"full")
    sys.exit("it signed with a full log")
except YubiHsmDeviceError as error:
    assert error.code == ERROR.LOG_FULL, error
info = hsm.get_device_info()
assert info.log_used == info.log_size
session.set_log_index(log(last)[-1].number)
session.set_force_audit(AUDIT.OFF)
key.sign_eddsa(b"room")
made.delete()
role.delete()
session.reset_device()
hsm.close()
print(f"firmware {firmware}: the client of Yubico finds what it expects")
