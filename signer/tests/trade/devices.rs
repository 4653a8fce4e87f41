//! Devices: a YubiHSM as tmkms's operators have it.

use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};

use super::*;

fn device(serial: u32) -> Connector {
    let mut count = 7_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(5).wrapping_add(113);
            *byte = count;
        }
    };
    let mut device = Device::new(b"password", Box::new(entropy));
    device.set_serial(serial);
    Connector::serve(([127, 0, 0, 1], 0), device, Latency::None).expect("a free port")
}

fn table(device: &Connector, password_file: &str) -> String {
    format!(
        "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://{}\" }}\n\
         auth = {{ key = 4, password_file = \"{password_file}\" }}\nkeys = [{{ chain_ids = [\"test-1\"], key = 4 }}]\naudit = \"off\"\n",
        device.address()
    )
}

#[test]
fn a_password_is_trimmed_as_tmkms_trims_it() {
    let (desk, device) = (Desk::new("plain.toml"), device(42));
    let connector = format!("tcp://{}", device.address());
    desk.monosign(&format!("yubihsm setup --secrets secrets --erase 42 --connector {connector}"))
        .must_succeed();
    let operator = format!("--auth-key 2 --password-file secrets/operator.password --connector {connector}");
    desk.monosign(&format!("yubihsm keys import consensus.key --id 4 {operator}")).must_succeed();
    let password = fs::read_to_string(desk.home.path("secrets/validator.password")).expect("a password");
    let text = String::from_utf8(file("plain.toml")).expect("text");
    let without_key = text.split("[[providers").next().expect("tables");
    desk.configure(&format!("{without_key}{}", table(&device, "pw")));
    desk.monosign(&format!("state init -c tmkms.toml --public-key {PUBLIC_KEY}")).must_succeed();
    for after in ["", " \n", "\r\n", "\t \n\n"] {
        desk.home.write("pw", format!("{password}{after}").as_bytes());
        let checked = desk.monosign("check --offline -c tmkms.toml").must_succeed().stdout;
        assert!(checked.contains(&format!("key {PUBLIC_KEY}")), "{after:?}: {checked}");
    }
}

#[test]
fn a_device_that_is_set_up_already_says_so_and_what_sets_it_up_anew() {
    let (desk, device) = (Desk::new("plain.toml"), device(42));
    let connector = format!("tcp://{}", device.address());
    let setup = format!("yubihsm setup --secrets secrets --erase 42 --connector {connector}");
    desk.monosign(&setup).must_succeed();
    let failed = desk.monosign(&setup).must_fail(1, &["it is set up already", "hint: "]);
    let options = told(&failed);
    let options = options.split("the same command with `").nth(1).and_then(|rest| rest.split('`').next());
    let options = options.expect("what to add");
    desk.monosign(&format!("{setup} {options}")).must_succeed();
    // Any other command says whose password is wrong.
    let list = format!("yubihsm keys list --connector {connector}");
    desk.monosign(&list).must_fail(1, &["authentication key 0x0001 has another password", "`--auth-key`"]);
    desk.monosign(&format!("{list} --auth-key 2 --password-file secrets/operator.password")).must_succeed();
}

/// What a command for devices advises, to the letter.
#[test]
fn what_is_advised_about_a_device_is_done_as_it_is_said() {
    let (desk, device) = (Desk::new("plain.toml"), device(42));
    let connector = format!("tcp://{}", device.address());
    desk.monosign(&format!("yubihsm setup --secrets secrets --erase 42 --connector {connector}"))
        .must_succeed();
    let role = |number: u8, name: &str| {
        format!("--auth-key {number} --password-file secrets/{name}.password --connector {connector}")
    };
    let (operator, validator) = (role(2, "operator"), role(4, "validator"));
    let generate = "yubihsm keys generate 1";
    let failed = desk.monosign(&format!("{generate} {validator}"));
    failed.must_fail(1, &["insufficient permissions", "--auth-key 2, the operator's"]);
    desk.monosign(&format!("{generate} {operator}")).must_succeed();
    desk.monosign(&format!("{generate} {operator}")).must_fail(1, &["choose another number"]);
    desk.monosign(&format!("yubihsm keys generate 2 {operator}")).must_succeed();
    let failed = desk.monosign(&format!("yubihsm test 9 {validator}"));
    failed.must_fail(1, &["`monosign yubihsm keys list` shows what is there"]);
    let listed = desk.monosign(&format!("yubihsm keys list {operator}")).must_succeed().stdout;
    assert!(listed.contains("0x0001") && listed.contains("0x0002") && !listed.contains("0x0009"), "{listed}");
    desk.monosign(&format!("yubihsm test 1 {validator}")).must_succeed();
    desk.monosign(&format!("yubihsm keys import consensus.key {operator}")).must_fail(2, &["hint: --id 1"]);
    desk.monosign(&format!("yubihsm keys import consensus.key --id 3 {operator}")).must_succeed();
    // Without a device or a configuration that names one.
    desk.monosign("yubihsm keys list -c tmkms.toml").must_fail(2, &["hint: --connector tcp://HOST:PORT"]);
}
